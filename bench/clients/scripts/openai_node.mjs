// The openai package of npm: `safety_identifier`, which takes the place of `user`, says who the user is.
//
// node openai_node.mjs URL MODEL USER prints what came back, a JSON object a line.

import OpenAI from "openai";

const [url, model, user] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const messages = [{ role: "user", content: "What is a compiler?" }];
const asked = { model, messages, safety_identifier: user, temperature: 0, max_tokens: 96 };
const show = (seen) => console.log(JSON.stringify(seen));

const reply = await client.chat.completions.create(asked);
show({ whole: reply.choices[0].message.content, state: reply.personalization.state });

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
show({ streamed });

const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Oslo"] } },
      required: ["city"],
    },
  },
};
const called = await client.chat.completions.create({
  ...asked,
  messages: [{ role: "user", content: "How is the weather in Oslo?" }],
  tools: [weather],
  tool_choice: { type: "function", function: { name: "weather" } },
});
show({ arguments: JSON.parse(called.choices[0].message.tool_calls[0].function.arguments) });

const pair = await client.chat.completions.create({ ...asked, n: 2, temperature: 1, seed: 1 });
show({ choices: pair.choices.map((choice) => choice.message.content) });

const vote = { user_id: user, generation_id: pair.id, chosen_index: 1, rejected_index: 0 };
const answer = await fetch(`${url}/feedback`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(vote),
});
show({ vote: await answer.json() });

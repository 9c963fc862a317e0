// Vercel's `ai` with @ai-sdk/openai-compatible: a header says who the user is, for all that one provider asks.
//
// node vercel_ai.mjs URL MODEL USER prints what came back, a JSON object a line.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, tool } from "ai";
import { z } from "zod";

const [url, name, user] = process.argv.slice(2);
const idiolect = createOpenAICompatible({
  name: "idiolect",
  baseURL: `${url}/v1`,
  headers: { "x-idiolect-user": encodeURIComponent(user) },
});
const asked = { model: idiolect(name), prompt: "What is a compiler?", temperature: 0, maxOutputTokens: 96 };
const show = (seen) => console.log(JSON.stringify(seen));

const reply = await generateText(asked);
show({ whole: reply.text, state: reply.response.headers["x-idiolect-personalization"] });

show({ streamed: await streamText(asked).text });

const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.enum(["Paris", "Oslo"]) }),
});
const called = await generateText({
  ...asked,
  prompt: "How is the weather in Oslo?",
  tools: { weather },
  toolChoice: "required",
});
show({ arguments: called.toolCalls[0].input });

// It has no `n`: two replies, each with an id.
const pair = [];
for (const seed of [1, 2]) pair.push(await generateText({ ...asked, temperature: 1, seed }));
show({ choices: pair.map((one) => one.text) });

const [rejected, chosen] = pair.map((one) => one.response.id);
const answer = await fetch(`${url}/feedback`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ user_id: user, chosen_generation_id: chosen, rejected_generation_id: rejected }),
});
show({ vote: await answer.json() });

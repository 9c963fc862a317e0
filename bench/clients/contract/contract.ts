// node contract.js URL KEY NAME: the contract through the generated TypeScript client, without anything of ours.
//
// Prints a line of JSON for each call, as contract.py does. That a body has the type which the document says is
// `tsc --strict`'s to check: each is read below by the fields of that type.
import * as api from "./client";
import { client } from "./client/client.gen";

const [url, key, name] = process.argv.slice(2) as [string, string, string];
const USER = "zoë/of the sea!";
const stranger = { auth: "none of them" };
client.setConfig({ baseUrl: url, auth: key });

type Answer<D, E> = { data?: D; error?: E; response?: Response };

function told(operation: string, status: number, fault: string | null): void {
  console.log(JSON.stringify({ operation, status, fault }));
}

/** The body of an answer that is right; `holds` reads it by its type. */
function right<D, E>(operation: string, answer: Answer<D, E>, holds: (body: D) => boolean): D {
  const status = answer.response?.status;
  const body = answer.data;
  const wrong = status !== 200 || body === undefined || !holds(body);
  told(operation, 200, wrong ? `${status}: ${JSON.stringify(answer.data ?? answer.error).slice(0, 200)}` : null);
  return body as D;
}

type Told = { error: { code: string; message: string; hint: string; retryable: boolean } };

/** An answer that is the error with this status and this code. */
function refused<D, E extends Told>(operation: string, answer: Answer<D, E>, status: number, code: string): void {
  const found = answer.response?.status;
  const error = answer.error?.error;
  const wrong = found !== status || error?.code !== code || error.message === "" || typeof error.retryable !== "boolean";
  told(operation, status, wrong ? `${found}: ${JSON.stringify(answer.error ?? answer.data).slice(0, 200)}` : null);
}

/** A stream, which is text until its end. */
async function streamed<D, E>(operation: string, asked: Promise<Answer<D, E>>, end: string): Promise<void> {
  const answer = await asked;
  const text = await new Response(answer.data as ReadableStream).text();
  told(operation, 200, text.includes(end) ? null : `no ${end} in ${text.slice(0, 200)}`);
}

async function replies(): Promise<void> {
  const body: api.GenerateRequest = { user_id: USER, prompt: "Question 1?", max_tokens: 4 };
  right("generate", await api.generate({ body }), (reply) => "text" in reply && reply.usage.completion_tokens === 4);
  const two: api.GenerateRequest = {
    messages: [{ role: "user", content: [{ type: "text", text: "Question 1?" }] }],
    max_tokens: 4,
    candidates: 2,
  };
  right("generate", await api.generate({ body: two }), (pair) => "candidates" in pair && pair.candidates.length === 2);
  refused("generate", await api.generate({ body: { ...body, max_tokens: 0 } }), 422, "invalid_request");
  refused("generate", await api.generate({ body: { prompt: "word ".repeat(5000) } }), 413, "prompt_too_long");
  refused("generate", await api.generate({ body, ...stranger }), 401, "unauthorized");
  await streamed("generate", api.generate({ body: { ...body, stream: true }, parseAs: "stream" }), "event: done");
  const many: api.GenerateRequest = { prompt: "Question 1?", max_tokens: 400 };
  const crowd = await Promise.all(Array.from({ length: 12 }, () => api.generate({ body: many })));
  const turnedAway = crowd.filter((answer) => answer.response?.status === 429);
  refused("generate", (turnedAway[0] ?? crowd[0])!, 429, "overloaded");
}

async function learning(): Promise<void> {
  const path = { user_id: USER };
  const body: api.FeedbackRequest = { user_id: USER, prompt: "Question 1?", chosen: "yes", rejected: "no", consent: true };
  const taken = right("feedback", await api.feedback({ body }), (vote) => vote.votes === 1 && !vote.duplicate);
  const headers = { "idempotency-key": "key-2" };
  const thumb: api.FeedbackRequest = { user_id: USER, prompt: "Question 2?", reply: "yes", thumb: "up" };
  right("feedback", await api.feedback({ body: thumb, headers }), (vote) => vote.effect != null);
  refused("feedback", await api.feedback({ body, headers }), 409, "idempotency_conflict");
  const unknown: api.FeedbackRequest = { user_id: USER, question_id: "0".repeat(16), chosen: "a", rejected: "b" };
  refused("feedback", await api.feedback({ body: unknown }), 404, "unknown_question");
  refused("feedback", await api.feedback({ body: { ...body, rejected: "yes" } }), 422, "invalid_request");
  refused("feedback", await api.feedback({ body: { ...body, prompt: "word ".repeat(8000) } }), 413, "vote_too_large");
  right("question", await api.question({ path }), (asked) => asked.question === null || asked.question.first !== "");
  right("votes", await api.votes({ path, query: { limit: 1 } }), (page) => page.votes.length === 1);
  refused("votes", await api.votes({ path, query: { limit: 0 } }), 422, "invalid_request");
  right("users", await api.users(), (page) => page.users.some((user) => user.user_id === USER && user.votes === 2));
  refused("users", await api.users({ query: { cursor: "none of ours" } }), 422, "invalid_request");
  right("export_votes", await api.exportVotes({ parseAs: "text" }), (lines) => (lines as string).includes("Question 1?"));
  refused("export_votes", await api.exportVotes({ query: { format: "csv" } }), 422, "invalid_request");
  right("set_profile", await api.setProfile({ path, body: { profile: "I sail." } }), (kept) => kept.profile === "I sail.");
  right("user", await api.user({ path }), (user) => user.user_id === USER && user.votes === 2 && user.profile === "I sail.");
  refused("user", await api.user({ path: { user_id: "a/../b" } }), 422, "invalid_request");
  const one = { user_id: USER, vote_id: taken.vote_id };
  right("take_back", await api.takeBack({ path: one }), (left) => left.votes === 1);
  refused("take_back", await api.takeBack({ path: one }), 404, "unknown_vote");
  right("erase", await api.erase({ path }), (erased) => erased.votes === 1 && erased.user_id === USER);
}

async function otherApis(): Promise<void> {
  const body: api.ChatCompletionRequest = { messages: [{ role: "user", content: "Hi" }], user: USER, max_tokens: 4 };
  right("chat_completions", await api.chatCompletions({ body }), (made) => made.choices[0]?.message.role === "assistant");
  refused("chat_completions", await api.chatCompletions({ body, ...stranger }), 401, "invalid_api_key");
  refused("chat_completions", await api.chatCompletions({ body: { ...body, model: "none" } }), 404, "model_not_found");
  refused("chat_completions", await api.chatCompletions({ body: { ...body, max_tokens: 0 } }), 400, "invalid_request");
  await streamed("chat_completions", api.chatCompletions({ body: { ...body, stream: true }, parseAs: "stream" }), "[DONE]");
  const raw: api.CompletionRequest = { prompt: "Question", max_tokens: 4 };
  right("completions", await api.completions({ body: raw }), (made) => typeof made.choices[0]?.text === "string");
  await streamed("completions", api.completions({ body: { ...raw, stream: true }, parseAs: "stream" }), "[DONE]");
  const item: api.ResponseRequest = { input: "Question 1?", max_output_tokens: 16 };
  right("responses", await api.responses({ body: item }), (made) => made.usage.output_tokens > 0 && made.output.length > 0);
  await streamed("responses", api.responses({ body: { ...item, stream: true }, parseAs: "stream" }), "response.completed");
  const said: api.MessageRequest = { messages: [{ role: "user", content: "Hi" }], max_tokens: 4, metadata: { user_id: USER } };
  right("messages", await api.messages({ body: said }), (made) => made.content[0]?.type === "text" && made.usage.input_tokens > 0);
  refused("messages", await api.messages({ body: said, ...stranger }), 401, "invalid_api_key");
  refused("messages", await api.messages({ body: { ...said, max_tokens: 0 } }), 400, "invalid_request");
  await streamed("messages", api.messages({ body: { ...said, stream: true }, parseAs: "stream" }), "message_stop");
  const count: api.CountRequest = { messages: [{ role: "user", content: "Hi" }] };
  right("count_tokens", await api.countTokens({ body: count }), (made) => made.input_tokens > 0);
  refused("count_tokens", await api.countTokens({ body: { ...count, model: "none" } }), 404, "model_not_found");
  right("models", await api.models(), (list) => list.data.some((model) => model.id === name));
  right("model", await api.model({ path: { name: `${name}:generic` } }), (model) => model.id === `${name}:generic`);
  refused("model", await api.model({ path: { name: "none" } }), 404, "model_not_found");
}

async function server(): Promise<void> {
  const ids = right("tokenize", await api.tokenize({ body: { prompt: "Question 1?" } }), (made) => made.count === made.tokens.length);
  right("detokenize", await api.detokenize({ body: { tokens: ids.tokens } }), (made) => made.prompt === "Question 1?");
  refused("detokenize", await api.detokenize({ body: { tokens: [2 ** 30] } }), 422, "invalid_request");
  right("status", await api.status(), (served) => served.votes_count && served.store === "ok");
  refused("status", await api.status(stranger), 401, "unauthorized");
  right("live", await api.live(stranger), (found) => found.status === "ok");
  right("ready", await api.ready(stranger), (found) => found.status === "ready");
  right("health", await api.health(stranger), (found) => found.status === "ready");
  right("metrics", await api.metrics(), (text) => text.includes("idiolect_errors_total"));
  right("version", await api.version(), (made) => made["version"] !== null);
}

replies()
  .then(learning)
  .then(otherApis)
  .then(server)
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });

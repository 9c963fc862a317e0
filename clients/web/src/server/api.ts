/** The HTTP API, typed by its own OpenAPI document. What is refused is thrown, as a Problem. */

import createClient from "openapi-fetch";
import { address } from "./address";
import { door } from "./door.svelte";
import { problem } from "./problem";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Known = Schemas["UserResponse"];
export type Question = Schemas["Question"];
export type Reply = Schemas["GenerateResponse"];
export type State = Known["state"];
export type Status = Schemas["StatusResponse"];
export type Receipt = Schemas["ErasureReceipt"];
export type GivenVote = Schemas["GivenVote"];
export type Taken = Schemas["FeedbackResponse"];
export type GenerateRequest = Schemas["GenerateRequest"];

/** Raises the Problem of an answer that is none. */
export async function accept(response: Response): Promise<Response> {
  if (response.ok) return response;
  if (response.status === 401) door.asks = true;
  throw problem(await response.json().catch(() => null), response.status);
}

const client = createClient<paths>({ baseUrl: address("").replace(/\/$/, "") });
client.use({
  onRequest({ request }) {
    for (const [name, value] of Object.entries(door.headers())) request.headers.set(name, value);
  },
  onResponse: ({ response }) => accept(response),
});

async function said<T>(answer: Promise<{ data?: T }>): Promise<NonNullable<T>> {
  return (await answer).data as NonNullable<T>;
}

export const status = (): Promise<Status> => said(client.GET("/status"));

const at = (user_id: string): { path: { user_id: string } } => ({ path: { user_id } });

export const known = (user: string): Promise<Known> => said(client.GET("/users/{user_id}", { params: at(user) }));

export const question = (user: string, skip: string[]): Promise<Schemas["QuestionResponse"]> =>
  said(client.GET("/users/{user_id}/question", { params: { ...at(user), query: { skip } } }));

export const users = (): Promise<Schemas["UsersResponse"]> => said(client.GET("/users"));

export const votes = (user: string, cursor: string | null = null): Promise<Schemas["VotesResponse"]> =>
  said(client.GET("/users/{user_id}/votes", { params: { ...at(user), query: { cursor } } }));

export const takeBack = (user: string, vote_id: string): Promise<Schemas["DeletedVote"]> =>
  said(client.DELETE("/users/{user_id}/votes/{vote_id}", { params: { path: { user_id: user, vote_id } } }));

export const putProfile = (user: string, profile: string | null): Promise<{ profile: string | null }> =>
  said(client.PUT("/users/{user_id}/profile", { params: at(user), body: { profile } }));

export const erase = (user: string): Promise<Receipt> =>
  said(client.DELETE("/users/{user_id}", { params: at(user) }));

export async function candidates(asked: GenerateRequest): Promise<Reply[]> {
  const made = await said(client.POST("/generate", { body: { ...asked, candidates: 2 } }));
  if (!("candidates" in made)) throw problem(null, 200);
  return made.candidates;
}

/** The server's own numbers, as Prometheus reads them. */
export const metrics = (): Promise<string> => said(client.GET("/metrics", { parseAs: "text" }));

const TRIES = 3;
const PAUSE_MS = 400;

/** One vote. Repeated under the same name when the way to the server fails, so that it counts once. */
export async function vote(body: Schemas["FeedbackRequest"]): Promise<Taken> {
  const header = { "idempotency-key": fresh("vote") };
  for (let tried = 1; ; tried += 1) {
    try {
      return await said(client.POST("/feedback", { body, params: { header } }));
    } catch (thrown) {
      if (!(thrown instanceof TypeError) || tried === TRIES) throw thrown;
      await new Promise((go) => setTimeout(go, PAUSE_MS * tried));
    }
  }
}

/** A name that nobody had before. (`crypto.randomUUID` is missing where a page came over plain HTTP.) */
export function fresh(kind: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `${kind}-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

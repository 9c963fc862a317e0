/** What went wrong, in words for whoever sits in front of the page. */

import { health } from "./health.svelte";
import type { components } from "./schema";

type Body = components["schemas"]["NativeError"];

const WORDS: Readonly<Record<string, string>> = {
  unauthorized: "This server asks for an API key.",
  not_ready: "The model is still starting. This page goes on by itself as soon as it is there.",
  stopping: "The server is being stopped. Try again in a moment.",
  engine_dead: "The model has stopped. The server starts it again; try in a minute.",
  overloaded: "Many people are asking at the moment. Try again in a few seconds.",
  deadline_exceeded: "The reply took too long, and was given up. Try again.",
  store_unavailable: "The server's memory of people does not answer, so your answer was not kept. Try again in a moment.",
  store_full: "The server's memory of people is full, so your answer was not kept.",
  prompt_too_long: "That is longer than this model can read.",
  unknown_generation: "The server no longer remembers this reply. Ask again, then choose.",
};

/** An error of the API, or of the way to it. `code` is the API's own; "gone" when nobody answered. */
export class Problem extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(WORDS[code] ?? message);
    this.code = code;
  }
}

/** Of the body of a refusal. */
export function problem(body: unknown, status: number): Problem {
  const error = (body as Partial<Body> | null | undefined)?.error;
  if (error === undefined) return new Problem("unknown", `The server answered ${status}.`);
  return new Problem(error.code, `${error.message[0]?.toUpperCase()}${error.message.slice(1)}.`);
}

/** Of whatever was thrown; null when we have hung up ourselves. It may mean that the server is not well: that is looked at. */
export function caught(thrown: unknown): Problem | null {
  if (thrown instanceof DOMException && thrown.name === "AbortError") return null;
  void health.look();
  if (thrown instanceof Problem) return thrown;
  return new Problem("gone", "The server does not answer.");
}

/** A reply, piece by piece: POST /generate as server-sent events. */

import { EventSourceParserStream } from "eventsource-parser/stream";
import { address } from "./address";
import { accept, type GenerateRequest, type Reply } from "./api";
import { door } from "./door.svelte";
import { Problem, problem } from "./problem";

/** Calls `onText` with each piece, and gives what the reply is at its end. Raises Problem. */
export async function stream(
  asked: GenerateRequest,
  onText: (piece: string) => void,
  signal: AbortSignal,
): Promise<Omit<Reply, "text">> {
  const response = await accept(
    await fetch(address("/generate"), {
      method: "POST",
      headers: { "content-type": "application/json", ...door.headers() },
      body: JSON.stringify({ ...asked, stream: true }),
      signal,
    }),
  );
  if (response.body === null) throw new Problem("unknown", "The reply has no content.");
  const events = response.body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  for (;;) {
    const { done, value } = await events.read();
    if (done) throw new Problem("interrupted", "The reply broke off. Ask again.");
    const data = JSON.parse(value.data);
    if (value.event === "text") onText(data.text);
    else if (value.event === "done") return data;
    else if (value.event === "error") throw problem(data, response.status);
  }
}

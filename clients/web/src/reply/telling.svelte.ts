/** A reply as it is being written. */

import type { GenerateRequest, State } from "../server/api";
import { caught, type Problem } from "../server/problem";
import { stream } from "../server/stream";

export class Telling {
  text = $state("");
  state = $state<State | null>(null);
  generationId = $state<string | null>(null);
  /** `waiting`: asked, and what stands there is still the reply before. */
  phase = $state<"idle" | "waiting" | "writing" | "done" | "failed">("idle");
  problem = $state<Problem | null>(null);
  private running: AbortController | null = null;

  get busy(): boolean {
    return this.phase === "waiting" || this.phase === "writing";
  }

  /** Have it written; a reply that is still being written is given up. True when this one came to its end. */
  async ask(asked: GenerateRequest): Promise<boolean> {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    this.phase = "waiting";
    this.problem = null;
    let text = "";
    const add = (piece: string): void => {
      if (running.signal.aborted) return;
      text += piece;
      this.text = text;
      this.phase = "writing";
    };
    try {
      const done = await stream(asked, add, running.signal);
      if (running.signal.aborted) return false;
      this.text = text;
      this.state = done.personalization.state;
      this.generationId = done.generation_id;
      this.phase = "done";
      return true;
    } catch (thrown) {
      if (this.running === running) {
        this.problem = caught(thrown);
        this.phase = this.problem === null ? "idle" : "failed";
      }
      return false;
    }
  }

  stop(): void {
    this.running?.abort();
    if (this.busy) this.phase = this.text === "" ? "idle" : "done";
  }
}

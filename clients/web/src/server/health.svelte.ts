/** Whether the server can be asked, looked at again and again. */

import { address } from "./address";

export type Phase = "asking" | "starting" | "ready" | "stalled" | "stopping" | "gone";

const SOON_MS = 1500;
const LATER_MS = 10_000;

class Health {
  phase = $state<Phase>("asking");
  store = $state<"ok" | "down">("ok");
  /** Counts how often all has become well: what could not be had is asked for again then. */
  back = $state(0);
  private was = false;
  private next: ReturnType<typeof setTimeout> | undefined;

  async look(): Promise<void> {
    clearTimeout(this.next);
    try {
      const response = await fetch(address("/health/ready"), { cache: "no-store" });
      const body = (await response.json()) as { status: Phase; store?: "ok" | "down" };
      this.phase = body.status;
      this.store = body.store ?? "ok";
    } catch {
      this.phase = "gone";
    }
    const fine = this.phase === "ready" && this.store === "ok";
    if (fine && !this.was) this.back += 1;
    this.was = fine;
    clearTimeout(this.next);
    this.next = setTimeout(() => void this.look(), fine ? LATER_MS : SOON_MS);
  }
}

export const health = new Health();

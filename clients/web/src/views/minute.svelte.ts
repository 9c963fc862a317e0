/** The minute: one prompt, answered for everybody and for the visitor, who chooses five times. */

import { nothing, type Belief } from "../belief/axes";
import { Telling } from "../reply/telling.svelte";
import * as api from "../server/api";
import { caught, type Problem } from "../server/problem";
import { series, total } from "../server/series";
import { visitor } from "../visitor";

export const N_ANSWERS = 5;
const MAX_TOKENS = 96;
const SCORED = 'idiolect_engine_requests_total{purpose="score"}';
const BYTES_A_NUMBER = 4; // codes are 32-bit floats

/** What one answer took. Null: not known. */
export interface Cost {
  /** From the click to the server's answer. */
  readonly took_ms: number;
  /** How often the model was asked about the answer, by the server's own count. */
  readonly modelCalls: number | null;
  /** Of the numbers that stand for the visitor. */
  readonly bytes: number | null;
}

export class Minute {
  readonly user = visitor();
  readonly generic = new Telling();
  readonly you = new Telling();
  prompt = $state("What is a compiler?");
  status = $state.raw<api.Status | null>(null);
  known = $state.raw<api.Known | null>(null);
  question = $state.raw<api.Question | null>(null);
  /** Why there is no question. */
  reason = $state<string | null>(null);
  n_answers = $state(0);
  /** A vote is on its way. */
  busy = $state(false);
  way = $state.raw<readonly Belief[]>([]);
  cost = $state.raw<Cost | null>(null);
  receipt = $state.raw<api.Receipt | null>(null);
  problem = $state.raw<Problem | null>(null);
  private skipped: string[] = [];
  private scored: number | null = null;

  readonly tastes = $derived(this.status?.cluster_names ?? []);
  readonly belief = $derived<Belief>(this.known?.belief ?? nothing(this.tastes));
  readonly believes = $derived(this.known?.belief != null);

  /** Begin, or begin again what could not be had before. */
  resume(): void {
    if (this.busy) return;
    if (this.question === null && this.reason === null) void this.begin();
    else if (this.generic.phase === "failed" || this.you.phase === "failed") void this.tellBoth();
  }

  private async begin(): Promise<void> {
    await this.attempt(async () => {
      this.status = await api.status();
      void this.tellBoth();
      this.known = await api.known(this.user);
      this.n_answers = this.known.votes ?? 0;
      this.scored = await this.countScored();
      await this.next();
    });
  }

  /** Both panes, for a new prompt or from a new beginning. */
  async tellBoth(): Promise<void> {
    await Promise.all([this.generic.ask({ prompt: this.prompt, max_tokens: MAX_TOKENS }), this.tellYou()]);
  }

  private tellYou(): Promise<boolean> {
    return this.you.ask({ prompt: this.prompt, max_tokens: MAX_TOKENS, user_id: this.user });
  }

  /** The visitor prefers the first or the second reply, or neither: that tells something, too. */
  async choose(side: "first" | "second" | "neither"): Promise<void> {
    const asked = this.question;
    if (asked === null || this.busy) return;
    const { first, second } = asked;
    const said = {
      first: { chosen: first, rejected: second },
      second: { chosen: second, rejected: first },
      neither: { tied: [first, second] satisfies [string, string] },
    };
    await this.attempt(async () => {
      const began = performance.now();
      await api.vote({ user_id: this.user, question_id: asked.question_id, ...said[side] });
      const took_ms = performance.now() - began;
      void this.tellYou();
      const [known, scored] = await Promise.all([api.known(this.user), this.countScored(), this.next()]);
      this.receipt = null;
      this.way = [...this.way, this.belief];
      this.known = known;
      this.n_answers += 1;
      const modelCalls = scored === null || this.scored === null ? null : scored - this.scored;
      this.scored = scored;
      const numbers = known.code?.length;
      this.cost = { took_ms, modelCalls, bytes: numbers === undefined ? null : BYTES_A_NUMBER * numbers };
    });
  }

  /** On to another pair, without an answer. */
  async skip(): Promise<void> {
    const asked = this.question;
    if (asked === null || this.busy) return;
    this.skipped.push(asked.question_id);
    await this.attempt(() => this.next());
  }

  /** Everything that the server has of the visitor, erased; and the first state again. */
  async forget(): Promise<void> {
    if (this.busy) return;
    await this.attempt(async () => {
      this.you.stop();
      this.receipt = await api.erase(this.user);
      this.known = await api.known(this.user);
      this.n_answers = 0;
      this.way = [];
      this.cost = null;
      this.skipped = [];
      void this.tellYou();
      await this.next();
    });
  }

  stop(): void {
    this.generic.stop();
    this.you.stop();
  }

  private async next(): Promise<void> {
    const found = await api.question(this.user, this.skipped);
    this.question = found.question;
    this.reason = found.reason;
  }

  private async countScored(): Promise<number | null> {
    return total(series(await api.metrics()), SCORED);
  }

  private async attempt(steps: () => Promise<void>): Promise<void> {
    this.busy = true;
    this.problem = null;
    try {
      await steps();
    } catch (thrown) {
      this.problem = caught(thrown);
    } finally {
      this.busy = false;
    }
  }
}

/** The API key, where the server asks for one: in this tab's session, never in an address. */

const KEPT_AS = "idiolect-key";

class Door {
  key = $state(sessionStorage.getItem(KEPT_AS) ?? "");
  /** The server has refused the key, or the lack of one. */
  asks = $state(false);
  /** Counts the keys that were given: whoever shows something starts anew with each. */
  turn = $state(0);

  open(key: string): void {
    this.key = key.trim();
    sessionStorage.setItem(KEPT_AS, this.key);
    this.asks = false;
    this.turn += 1;
  }

  headers(): Record<string, string> {
    return this.key === "" ? {} : { authorization: `Bearer ${this.key}` };
  }
}

export const door = new Door();

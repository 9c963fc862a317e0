/** Whoever sits in front of this tab: a stranger to the server, under a name that nobody had before. */

import { fresh } from "./server/api";

const KEPT_AS = "idiolect-visitor";

export function visitor(): string {
  const kept = sessionStorage.getItem(KEPT_AS);
  if (kept !== null) return kept;
  const name = fresh("visitor");
  sessionStorage.setItem(KEPT_AS, name);
  return name;
}

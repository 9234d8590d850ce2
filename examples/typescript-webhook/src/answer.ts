import type { PublishError } from "./contract.js";

/** What may become of an event that is not published. */
export type Kind = PublishError["tag"];

const MAX_U32 = 2 ** 32 - 1;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** The three formats of a date in HTTP. */
const DATES = [
  /^[A-Z][a-z]{2}, (?<day>\d\d) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]+, (?<day>\d\d)-(?<month>[A-Z][a-z]{2})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]{2} (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/,
];

export interface Answer {
  status: number;
  retryAfter: string | undefined;
  /** The beginning of the body. */
  body: string;
}

/** What an answer means for the event: nothing where it is published, else the error to throw. */
export function toError(shown: string, answer: Answer, notFound: Kind, now: number): PublishError | undefined {
  const { status, retryAfter, body } = answer;
  if (status >= 200 && status < 300) return undefined;
  const said = body.trim();
  const reason = `${shown} answered ${status}${said && `: ${said}`}`;
  const tag = meaning(status, notFound);
  if (tag === "rejected") return { tag, val: reason };
  return { tag, val: { reason, retryAfterMs: wait(retryAfter, now) } };
}

/** What a status means that is not 2xx: see webhook.md. */
function meaning(status: number, notFound: Kind): Kind {
  switch (status) {
    case 401: case 403: case 407: case 429: case 503:
      return "unavailable";
    case 404: case 410:
      return notFound;
    case 408: case 409: case 421: case 423: case 425:
      return "retryable";
    default:
      return status >= 400 && status < 500 ? "rejected" : "retryable";
  }
}

/** `Retry-After` is a number of seconds, or a date. */
function wait(retryAfter: string | undefined, now: number): number | undefined {
  const value = retryAfter?.trim() ?? "";
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : parseDate(value, now) - now;
  return Number.isNaN(milliseconds) ? undefined : Math.min(Math.max(milliseconds, 0), MAX_U32);
}

/** In milliseconds since 1970; NaN where it is no date. */
function parseDate(value: string, now: number): number {
  const found = DATES.map((format) => format.exec(value)).find((match) => match)?.groups;
  if (!found?.day || !found.month || !found.year || !found.time) return NaN;
  const month = MONTHS.indexOf(found.month);
  const thisYear = new Date(now).getUTCFullYear();
  let year = Number(found.year);
  if (found.year.length === 2) {
    year += thisYear - (thisYear % 100);
    if (year > thisYear + 50) year -= 100; // one that would be more than 50 years ahead is past
  }
  return month < 0 ? NaN : Date.UTC(year, month, Number(found.day), ...found.time.split(":").map(Number));
}

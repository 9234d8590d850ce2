const MAX_U32 = 2 ** 32 - 1;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** The three formats of a date in HTTP. */
const DATES = [
  /^[A-Z][a-z]{2}, (?<day>\d\d) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]+, (?<day>\d\d)-(?<month>[A-Z][a-z]{2})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]{2} (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/,
];

/** What a response means for the event: nothing where it is published, else the error to throw. */
export function toError(destination, { status, retryAfter, body }, notFound, now) {
  if (status >= 200 && status < 300) return undefined;
  const said = body.trim();
  const reason = `${destination.shown} answered ${status}${said && `: ${said}`}`;
  const tag = meaning(status, notFound);
  return { tag, val: tag === "rejected" ? reason : { reason, retryAfterMs: wait(retryAfter, now) } };
}

/** What a status means that is not 2xx: see webhook.md. */
function meaning(status, notFound) {
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
function wait(retryAfter, now) {
  const value = retryAfter?.trim() ?? "";
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : parseDate(value, now) - now;
  return Number.isNaN(milliseconds) ? undefined : Math.min(Math.max(milliseconds, 0), MAX_U32);
}

/** In milliseconds since 1970; NaN where it is no date. */
function parseDate(value, now) {
  const found = DATES.map((format) => format.exec(value)).find((match) => match)?.groups;
  if (!found) return NaN;
  const month = MONTHS.indexOf(found.month);
  const thisYear = new Date(now).getUTCFullYear();
  let year = Number(found.year);
  if (found.year.length === 2) {
    year += thisYear - (thisYear % 100);
    if (year > thisYear + 50) year -= 100; // one that would be more than 50 years ahead is past
  }
  return month < 0 ? NaN : Date.UTC(year, month, Number(found.day), ...found.time.split(":").map(Number));
}

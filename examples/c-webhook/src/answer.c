#include "answer.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

publish_error retryable(void) { return (publish_error){.tag = OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_RETRYABLE}; }

publish_error rejected(void) { return (publish_error){.tag = OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_REJECTED}; }

publish_error unavailable(void) { return (publish_error){.tag = OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_UNAVAILABLE}; }

text *reason(publish_error *error) {
  switch (error->tag) {
    case OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_REJECTED: return &error->val.rejected;
    case OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_UNAVAILABLE: return &error->val.unavailable.reason;
    default: return &error->val.retryable.reason;
  }
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
static int64_t days(int64_t year, int month, int day) {
  // Years begin in March here, so that a leap day is a year's last.
  year -= month <= 2;
  int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719468;
}

/// The years of a century that a date leaves out: one that would be more than 50 years ahead is past.
static int whole_year(int year, int64_t now) {
  int64_t this_year = 1970 + now / 31556952;
  year += this_year - this_year % 100;
  return year > this_year + 50 ? year - 100 : year;
}

/// A date in one of the three formats of HTTP, in seconds since 1970.
static bool parse_date(text value, int64_t now, int64_t *seconds) {
  static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  char copy[40] = {0}, month[4], zone[4] = "GMT";
  int day, year, hour, minute, second, end = 0;
  if (value.len >= sizeof copy) return false;
  memcpy(copy, value.ptr, value.len);
  // Sat, 31 Jan 2026 12:00:30 GMT
  sscanf(copy, "%*3[A-Za-z], %2d %3s %4d %2d:%2d:%2d %3s%n", &day, month, &year, &hour, &minute, &second, zone, &end);
  if (end == 0) { // Saturday, 31-Jan-26 12:00:30 GMT
    sscanf(copy, "%*9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d %3s%n", &day, month, &year, &hour, &minute, &second, zone, &end);
    if (end > 0) year = whole_year(year, now);
  }
  if (end == 0) { // Sat Jan 31 12:00:30 2026
    sscanf(copy, "%*3[A-Za-z] %3s %2d %2d:%2d:%2d %4d%n", month, &day, &hour, &minute, &second, &year, &end);
  }
  const char *found = end == (int)value.len && end > 0 ? strstr(months, month) : NULL;
  if (found == NULL || strlen(month) != 3 || strcmp(zone, "GMT") != 0) return false;
  *seconds = days(year, (int)(found - months) / 3 + 1, day) * 86400 + hour * 3600 + minute * 60 + second;
  return true;
}

/// `Retry-After` is a number of seconds, or a date.
static webhook_option_u32_t wait_ms(text value, int64_t now) {
  int64_t seconds = 0, date;
  if (value.len == 0) return (webhook_option_u32_t){.is_some = false};
  if (parse_date(value, now, &date)) {
    seconds = date > now ? date - now : 0;
  } else {
    for (size_t at = 0; at < value.len; at++) {
      if (!isdigit(value.ptr[at])) return (webhook_option_u32_t){.is_some = false};
      if (seconds < UINT32_MAX) seconds = seconds * 10 + (value.ptr[at] - '0');
    }
  }
  return (webhook_option_u32_t){.is_some = true, .val = seconds < UINT32_MAX / 1000 ? (uint32_t)seconds * 1000 : UINT32_MAX};
}

bool parse_error(const char *name, publish_error *error) {
  if (strcmp(name, "retryable") == 0) *error = retryable();
  else if (strcmp(name, "rejected") == 0) *error = rejected();
  else if (strcmp(name, "unavailable") == 0) *error = unavailable();
  else return false;
  return true;
}

/// What a status means that is not 2xx: see webhook.md.
static publish_error meaning(uint16_t status, publish_error not_found) {
  switch (status) {
    case 401: case 403: case 407: case 429: case 503: return unavailable();
    case 404: case 410: return not_found;
    case 408: case 409: case 421: case 423: case 425: return retryable();
    default: return status >= 400 && status < 500 ? rejected() : retryable();
  }
}

bool is_published(const struct destination *destination, const struct response *response, publish_error not_found, int64_t now,
                  publish_error *error) {
  uint16_t status = response->status;
  if (status >= 200 && status < 300) return true;
  *error = meaning(status, not_found);
  webhook_option_u32_t wait = wait_ms(trimmed(text_of(response->retry_after)), now);
  if (error->tag == OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_RETRYABLE) error->val.retryable.retry_after_ms = wait;
  if (error->tag == OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_UNAVAILABLE) error->val.unavailable.retry_after_ms = wait;
  text body = trimmed(text_of(response->body));
  add_destination(reason(error), destination);
  add(reason(error), " answered ");
  add_number(reason(error), status);
  if (body.len > 0) add(reason(error), ": ");
  add_text(reason(error), body);
  return false;
}

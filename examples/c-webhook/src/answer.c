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

/// `Sat, 31 Jan 2026 12:00:30 GMT`, in seconds since 1970.
static bool parse_date(text value, int64_t *seconds) {
  static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  char copy[32] = {0}, month[4], zone[4];
  int day, year, hour, minute, second;
  if (value.len >= sizeof copy) return false;
  memcpy(copy, value.ptr, value.len);
  if (sscanf(copy, "%*3s, %2d %3s %4d %2d:%2d:%2d %3s", &day, month, &year, &hour, &minute, &second, zone) != 7) return false;
  const char *found = strstr(months, month);
  if (found == NULL || strlen(month) != 3 || strcmp(zone, "GMT") != 0) return false;
  *seconds = days(year, (int)(found - months) / 3 + 1, day) * 86400 + hour * 3600 + minute * 60 + second;
  return true;
}

/// `Retry-After` is a number of seconds, or a date.
static webhook_option_u32_t wait_ms(text value, int64_t now) {
  int64_t seconds = 0, date;
  if (value.len == 0) return (webhook_option_u32_t){.is_some = false};
  if (parse_date(value, &date)) {
    seconds = date > now ? date - now : 0;
  } else {
    for (size_t at = 0; at < value.len; at++) {
      if (!isdigit(value.ptr[at])) return (webhook_option_u32_t){.is_some = false};
      if (seconds < UINT32_MAX) seconds = seconds * 10 + (value.ptr[at] - '0');
    }
  }
  return (webhook_option_u32_t){.is_some = true, .val = seconds < UINT32_MAX / 1000 ? (uint32_t)seconds * 1000 : UINT32_MAX};
}

bool is_published(const struct destination *destination, const struct response *response, int64_t now, publish_error *error) {
  uint16_t status = response->status;
  if (status >= 200 && status < 300) return true;
  if (status == 429 || status == 503) {
    *error = unavailable();
    error->val.unavailable.retry_after_ms = wait_ms(trimmed(text_of(response->retry_after)), now);
  } else if (status >= 400 && status < 500 && status != 408 && status != 409) {
    *error = rejected();
  } else {
    *error = retryable();
  }
  text body = trimmed(text_of(response->body));
  add_destination(reason(error), destination);
  add(reason(error), " answered ");
  add_number(reason(error), status);
  if (body.len > 0) add(reason(error), ": ");
  add_text(reason(error), body);
  return false;
}

// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>

#include "number.h"
#include "report.h"

namespace forksafe {
namespace {

// The largest numbers that make sense. A larger one is taken for a typing error.
constexpr long kMaxWaitMs = 3600 * 1000;
constexpr long kMaxThreads = 4096;

bool read_number(const char* text, long lowest, long highest, int* result) {
  if (*text < '0' || *text > '9') return false;
  const long value = parse_number(text, &text);
  if (*text != '\0' || value < lowest || value > highest) return false;
  *result = static_cast<int>(value);
  return true;
}

bool read_enabled(const char* text, Options* o) {
  if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0) return false;
  o->enabled = *text == '1';
  return true;
}

bool read_wait(const char* text, Options* o) {
  return read_number(text, 0, kMaxWaitMs, &o->wait_ms);
}

bool read_pool(const char* text, Options* o) {
  if (strcmp(text, "keep") != 0 && strcmp(text, "drop") != 0) return false;
  o->drop_pool = *text == 'd';
  return true;
}

bool read_child_threads(const char* text, Options* o) {
  if (strcmp(text, "inherit") == 0 || strcmp(text, "auto") == 0) {
    o->child_threads = *text == 'a' ? Options::kAuto : Options::kInherit;
    return true;
  }
  return read_number(text, 1, kMaxThreads, &o->child_threads);
}

bool read_log(const char* text, Options* o) {
  o->log = text;
  return true;
}

struct Option {
  const char* name;
  bool (*read)(const char* text, Options* options);
  const char* accepts;
  const char* fallback;
};

constexpr Option kOptions[] = {
    {"FORKSAFE", read_enabled, "0 or 1", "1"},
    {"FORKSAFE_WAIT_MS", read_wait, "milliseconds from 0 to 3600000", "1000"},
    {"FORKSAFE_POOL", read_pool, "keep or drop", "keep"},
    {"FORKSAFE_CHILD_THREADS", read_child_threads, "inherit, auto or a number from 1 to 4096",
     "inherit"},
    {"FORKSAFE_LOG", read_log, "stderr or a path", "no log"},
};

Options current;

}  // namespace

Options read_options(const char* (*get)(const char* name), Complain complain) {
  Options result;
  for (const Option& option : kOptions) {
    const char* text = get(option.name);
    if (text == nullptr || *text == '\0' || option.read(text, &result)) continue;
    Line line;
    line.add(option.name)
        .add("=")
        .add_foreign(text)
        .add(" can't be read: give ")
        .add(option.accepts);
    line.add("; going on with ").add(option.fallback);
    complain(line.text());
  }
  return result;
}

const Options& options() { return current; }

namespace {

// A copy, and absolute: programs overwrite the memory of their environment (setproctitle), and
// change their directory.
char log_path[PATH_MAX];

const char* absolute(const char* path) {
  const size_t length = strlen(path);
  size_t folder = 0;
  if (*path != '/') {
    if (getcwd(log_path, sizeof log_path) == nullptr) return nullptr;
    folder = strlen(log_path);
    log_path[folder++] = '/';
  }
  if (folder + length >= sizeof log_path) return nullptr;
  memcpy(log_path + folder, path, length + 1);
  return log_path;
}

}  // namespace

void init_options() {
  if (getauxval(AT_SECURE) != 0) {
    current.opens_files = false;
    return;
  }
  current = read_options([](const char* name) -> const char* { return getenv(name); },
                         [](const char* line) { report_to_stderr(line); });
  if (current.log != nullptr && strcmp(current.log, "stderr") != 0) {
    const char* const asked = current.log;
    current.log = absolute(asked);
    if (current.log == nullptr) {
      Line line;
      line.add("FORKSAFE_LOG=").add_foreign(asked);
      line.add(" can't be used: give a path that is shorter; going on with no log");
      report_to_stderr(line.text());
    }
  }
  set_log(current.log);
}

}  // namespace forksafe

// SPDX-License-Identifier: Apache-2.0
// Reading the options from an environment, and writing the lines of the log.
#include "options.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <climits>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "number.h"
#include "report.h"
#include "support.h"

using forksafe::Line;
using forksafe::Options;

namespace {

std::map<std::string, std::string> environment;
std::vector<std::string> complaints;

const char* get(const char* name) {
  const auto found = environment.find(name);
  return found == environment.end() ? nullptr : found->second.c_str();
}

Options read(std::map<std::string, std::string> given) {
  environment = std::move(given);
  complaints.clear();
  return forksafe::read_options(get, [](const char* line) { complaints.emplace_back(line); });
}

void check_defaults(const Options& o) {
  CHECK(o.enabled);
  CHECK(o.wait_ms == 1000);
  CHECK_FALSE(o.drop_pool);
  CHECK(o.child_threads == 0);
  CHECK(o.log == nullptr);
}

}  // namespace

TEST_CASE("an empty environment gives the defaults and no complaint", "[options]") {
  check_defaults(read({}));
  CHECK(complaints.empty());
}

TEST_CASE("an option that is set to nothing counts as unset", "[options]") {
  check_defaults(read({{"FORKSAFE", ""},
                       {"FORKSAFE_WAIT_MS", ""},
                       {"FORKSAFE_POOL", ""},
                       {"FORKSAFE_CHILD_THREADS", ""},
                       {"FORKSAFE_LOG", ""}}));
  CHECK(complaints.empty());
}

TEST_CASE("good values are read without a complaint", "[options]") {
  CHECK_FALSE(read({{"FORKSAFE", "0"}}).enabled);
  CHECK(complaints.empty());
  CHECK(read({{"FORKSAFE", "1"}}).enabled);
  CHECK(complaints.empty());

  CHECK(read({{"FORKSAFE_WAIT_MS", "0"}}).wait_ms == 0);
  CHECK(complaints.empty());
  CHECK(read({{"FORKSAFE_WAIT_MS", "250"}}).wait_ms == 250);
  CHECK(complaints.empty());
  CHECK(read({{"FORKSAFE_WAIT_MS", "3600000"}}).wait_ms == 3600000);
  CHECK(complaints.empty());

  CHECK(read({{"FORKSAFE_POOL", "drop"}}).drop_pool);
  CHECK(complaints.empty());
  CHECK_FALSE(read({{"FORKSAFE_POOL", "keep"}}).drop_pool);
  CHECK(complaints.empty());

  CHECK(read({{"FORKSAFE_CHILD_THREADS", "inherit"}}).child_threads == Options::kInherit);
  CHECK(read({{"FORKSAFE_CHILD_THREADS", "auto"}}).child_threads == Options::kAuto);
  CHECK(complaints.empty());
  CHECK(read({{"FORKSAFE_CHILD_THREADS", "1"}}).child_threads == 1);
  CHECK(complaints.empty());
  CHECK(read({{"FORKSAFE_CHILD_THREADS", "4096"}}).child_threads == 4096);
  CHECK(complaints.empty());

  CHECK(std::string(read({{"FORKSAFE_LOG", "stderr"}}).log) == "stderr");
  CHECK(complaints.empty());
  CHECK(std::string(read({{"FORKSAFE_LOG", "/tmp/a log"}}).log) == "/tmp/a log");
  CHECK(complaints.empty());
}

TEST_CASE("a value that can't be read gets one line with variable, value and default",
          "[options]") {
  struct Bad {
    const char* name;
    const char* fallback;
    std::vector<std::string> values;
  };
  const std::vector<Bad> all = {
      {"FORKSAFE", "1", {"2", "00", "01", "yes", "off", " 1", "1 ", "-1"}},
      {"FORKSAFE_WAIT_MS",
       "1000",
       {"-1", "+1", " 5", "5 ", "5ms", "1.5", "0x10", "abc", "3600001", "4294967297",
        "99999999999999999999999999"}},
      {"FORKSAFE_POOL", "keep", {"Drop", "dropped", "k", "0", "keep "}},
      {"FORKSAFE_CHILD_THREADS",
       "inherit",
       {"0", "-2", "4097", "two", "2x", "Inherit", "Auto", "automatic", "-1", "4294967298",
        "18446744073709551617"}},
  };
  for (const Bad& bad : all) {
    for (const std::string& value : bad.values) {
      CAPTURE(bad.name, value);
      check_defaults(read({{bad.name, value}}));
      REQUIRE(complaints.size() == 1);
      const std::string& line = complaints.front();
      CHECK(line.find(std::string(bad.name) + "=" + value + " ") == 0);
      const std::string ending = std::string("going on with ") + bad.fallback;
      REQUIRE(line.size() >= ending.size());
      CHECK(line.substr(line.size() - ending.size()) == ending);
      CHECK(line.find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("one bad value leaves the others as they were given", "[options]") {
  const Options o = read({{"FORKSAFE_WAIT_MS", "soon"},
                          {"FORKSAFE_POOL", "drop"},
                          {"FORKSAFE_CHILD_THREADS", "3"},
                          {"FORKSAFE_LOG", "x"}});
  CHECK(complaints.size() == 1);
  CHECK(o.wait_ms == 1000);
  CHECK(o.drop_pool);
  CHECK(o.child_threads == 3);
  CHECK(std::string(o.log) == "x");
}

TEST_CASE("each bad value has a line of its own", "[options]") {
  read({{"FORKSAFE", "x"},
        {"FORKSAFE_WAIT_MS", "x"},
        {"FORKSAFE_POOL", "x"},
        {"FORKSAFE_CHILD_THREADS", "x"}});
  CHECK(complaints.size() == 4);
}

TEST_CASE("a very long value is one line that ends within the buffer", "[options]") {
  read({{"FORKSAFE_POOL", std::string(5000, 'x')}});
  REQUIRE(complaints.size() == 1);
  CHECK(complaints.front().size() < 1024);
  CHECK(complaints.front().find("FORKSAFE_POOL=xxx") == 0);
}

TEST_CASE("a line puts text and numbers together", "[options]") {
  Line line;
  CHECK(line.size() == 0);
  CHECK(std::string(line.text()).empty());
  line.add("a=").add(0L).add(", b=").add(-17L).add("").add(", c=").add(1234567890L);
  CHECK(std::string(line.text()) == "a=0, b=-17, c=1234567890");
  CHECK(line.size() == std::string(line.text()).size());
}

TEST_CASE("a line can hold the largest and the smallest number", "[options]") {
  Line line;
  line.add(LONG_MAX).add(" ").add(LONG_MIN);
  CHECK(std::string(line.text()) == std::to_string(LONG_MAX) + " " + std::to_string(LONG_MIN));
}

TEST_CASE("a line cuts off what does not fit", "[options]") {
  const std::string most(1020, 'x');
  Line line;
  line.add(most.c_str());
  CHECK(line.size() == 1020);
  line.add(-123456L);
  CHECK(line.size() == 1023);
  CHECK(std::string(line.text()) == most + "-12");
  line.add("more").add(7L);
  CHECK(line.size() == 1023);
  CHECK(std::string(line.text()).size() == 1023);
}

TEST_CASE("the log is written to the file that FORKSAFE_LOG names, and nowhere by default",
          "[options]") {
  const TemporaryDirectory directory;
  const std::string log = directory.file("log");
  CHECK(run_in_child([&]() -> std::string {
          unsetenv("FORKSAFE_LOG");
          forksafe::init_options();
          if (forksafe::logging()) return "logs by default";
          forksafe::report("not to be seen");
          setenv("FORKSAFE_LOG", log.c_str(), 1);
          forksafe::init_options();
          if (!forksafe::logging()) return "does not log";
          errno = 4711;
          forksafe::report("first");
          forksafe::report("second");
          return errno == 4711 ? "" : "errno was changed";
        }) == "");
  const std::string text = read_file(log);
  CHECK(text.find("not to be seen") == std::string::npos);
  CHECK(text.find("forksafe[") == 0);
  CHECK(text.find("]: first\nforksafe[") != std::string::npos);
  CHECK(text.find("]: second\n") == text.size() - std::string("]: second\n").size());
}

TEST_CASE("a number is read as strtol reads it", "[options]") {
  for (const char* text : {"", "0", "64", " \t\n7 8", "+5x", "-1\n", "- 3", "max 100000", "2.5",
                           "9223372036854775807", "99999999999999999999"}) {
    CAPTURE(text);
    const char* end = nullptr;
    char* strtol_end = nullptr;
    CHECK(forksafe::parse_number(text, &end) == strtol(text, &strtol_end, 10));
    // Where there is no number, strtol does not skip spaces and the sign.
    if (strtol_end != text) CHECK(end == strtol_end);
  }
}

TEST_CASE("a log that can't be written does not disturb the program", "[options]") {
  CHECK(run_in_child([]() -> std::string {
          setenv("FORKSAFE_LOG", "/nonexistent/folder/log", 1);
          forksafe::init_options();
          errno = 4711;
          forksafe::report("lost");
          return errno == 4711 ? "" : "errno was changed";
        }) == "");
}

TEST_CASE("nobody waits for the reader of a log that is a FIFO", "[options]") {
  const TemporaryDirectory directory;
  const std::string log = directory.file("log");
  REQUIRE(mkfifo(log.c_str(), 0600) == 0);
  const bool has_reader = GENERATE(false, true);
  CAPTURE(has_reader);
  CHECK(run_in_child(
            [&]() -> std::string {
              if (has_reader && open(log.c_str(), O_RDONLY | O_NONBLOCK) < 0) return "no reader";
              setenv("FORKSAFE_LOG", log.c_str(), 1);
              forksafe::init_options();
              const std::string text(500, 'a');
              for (int i = 0; i < 1000; ++i)
                forksafe::report(text.c_str());  // more than a pipe holds
              return "";
            },
            5000) == "");
}

TEST_CASE("a path with a newline can't forge a line of the log", "[options]") {
  const TemporaryDirectory directory;
  const std::string log = directory.file("log");
  CHECK(run_in_child([&]() -> std::string {
          setenv("FORKSAFE_LOG", log.c_str(), 1);
          forksafe::init_options();
          forksafe::Line line;
          forksafe::report(line.add("adopted /a\nforksafe[1]: all is well\x1b[2J\x7f").text());
          return "";
        }) == "");
  const std::string text = read_file(log);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.find("]: adopted /a?forksafe[1]: all is well?[2J?\n") != std::string::npos);
}

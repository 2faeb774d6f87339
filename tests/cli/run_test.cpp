// SPDX-License-Identifier: Apache-2.0
// forksafe COMMAND: the command runs as without forksafe, but with the library in it. If that is
// not possible, forksafe says so in one line.
#include "commands/run.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <utility>

#include "base/library.h"
#include "base/words.h"
#include "support.h"

using namespace forksafe_test;
namespace cli = forksafe::cli;
namespace fs = std::filesystem;

namespace {

constexpr const char* kIsMapped = "grep -q libforksafe.so /proc/self/maps && echo mapped";

bool ended(const Outcome& outcome, int status) {
  return outcome.end == Outcome::End::kExited && outcome.status == status;
}

/// Fails unless forksafe ended with `status` and printed one line that contains all `parts`.
void check_refused(const Outcome& outcome, int status, const std::vector<std::string>& parts) {
  INFO(outcome.describe());
  CHECK(ended(outcome, status));
  CHECK(lines_of(outcome.output).size() == 1);
  CHECK(outcome.output.compare(0, 10, "forksafe: ") == 0);
  for (const std::string& part : parts) {
    INFO("in it: " << part);
    CHECK(contains(outcome.output, part));
  }
}

void check_output(const Outcome& outcome, const std::string& output) {
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
  CHECK(outcome.output == output);
}

/// Copies the layout of the build folder, or of an installed tree. Returns the path of the command.
std::string copy_built(const std::string& root) {
  fs::create_directories(root + "/cli");
  fs::create_directories(root + "/shim");
  fs::copy_file(forksafe_library(), root + "/shim/libforksafe.so");
  fs::copy_file(forksafe_command(), root + "/cli/forksafe");
  return root + "/cli/forksafe";
}

std::string installed_library(const std::string& bindir) {
  return (fs::path(bindir) / FORKSAFE_LIBRARY).lexically_normal();
}

std::string copy_installed(const std::string& prefix) {
  const std::string bindir = prefix + "/" FORKSAFE_BINDIR;
  fs::create_directories(bindir);
  fs::create_directories(fs::path(installed_library(bindir)).parent_path());
  fs::copy_file(forksafe_library(), installed_library(bindir));
  fs::copy_file(forksafe_command(), bindir + "/forksafe");
  return bindir + "/forksafe";
}

template <typename Header, typename Segment>
std::string elf_file(unsigned char elf_class, unsigned short machine, const std::string& loader) {
  Header header = {};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = machine;
  header.e_version = EV_CURRENT;
  header.e_ehsize = sizeof header;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Segment);
  header.e_phnum = loader.empty() ? 0 : 1;
  Segment segment = {};
  segment.p_type = PT_INTERP;
  segment.p_offset = sizeof header + sizeof segment;
  segment.p_filesz = segment.p_memsz = static_cast<decltype(segment.p_filesz)>(loader.size() + 1);
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  if (loader.empty()) return file;
  file.append(reinterpret_cast<const char*>(&segment), sizeof segment);
  return file + loader + '\0';
}

constexpr unsigned char kOwnClass = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;

std::string own_elf(unsigned short machine, const std::string& loader) {
  return elf_file<ElfW(Ehdr), ElfW(Phdr)>(kOwnClass, machine, loader);
}

unsigned short own_machine() {
  const std::string self = read_file("/proc/self/exe");
  ElfW(Ehdr) header;
  memcpy(&header, self.data(), sizeof header);
  return header.e_machine;
}

/// The result of a command that ran on a terminal of its own.
struct OnTerminal {
  std::string output;
  int status;  ///< from waitpid
};

/// Runs a bash script on a terminal, and types Ctrl-C when it prints "ready". Kills it after 30
/// seconds.
OnTerminal run_on_terminal(const std::string& script) {
  int terminal;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    // Do not echo ^C, and do not discard output when it is typed.
    termios settings;
    tcgetattr(STDIN_FILENO, &settings);
    settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    settings.c_lflag |= NOFLSH;
    tcsetattr(STDIN_FILENO, TCSANOW, &settings);
    setenv("F", forksafe_command().c_str(), 1);
    execlp("bash", "bash", "-c", script.c_str(), nullptr);
    _exit(127);
  }
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  OnTerminal result = {};
  bool typed = false;
  while (Clock::now() < deadline) {
    pollfd events = {terminal, POLLIN, 0};
    if (poll(&events, 1, 100) <= 0) continue;
    char buffer[1024];
    const ssize_t size = read(terminal, buffer, sizeof buffer);
    if (size <= 0) break;  // EIO: no process has the terminal open
    result.output.append(buffer, static_cast<size_t>(size));
    if (!typed && contains(result.output, "ready")) {
      typed = write(terminal, "\x03", 1) == 1;
    }
  }
  if (Clock::now() >= deadline) kill(-child, SIGKILL);
  waitpid(child, &result.status, 0);
  close(terminal);
  return result;
}

}  // namespace

// ---- usage

TEST_CASE("without arguments it prints the help on standard error", "[usage]") {
  const Outcome outcome = run_forksafe({});
  CHECK(ended(outcome, 2));
  CHECK(contains(outcome.output, "Usage: forksafe"));
  check_output(run_shell("$FORKSAFE_COMMAND 2>/dev/null || true"), "");
}

TEST_CASE("the help fits one screen and begins its examples with the common case", "[usage]") {
  const Outcome outcome = run_forksafe({"--help"});
  CHECK(outcome.succeeded());
  const std::vector<std::string> lines = lines_of(outcome.output);
  CHECK(lines.size() <= 24);
  for (const std::string& line : lines) CHECK(line.size() <= 80);
  CHECK(contains(outcome.output, "Examples:\n  forksafe python app.py\n"));
  for (const char* part :
       {"\n  list ", "\n  check ", "\n  diagnose ", "--child-threads N", "--wait-ms MS",
        "--pool keep|drop", "--log stderr|PATH", "--watch SECONDS", "--watch-abort", "--off",
        "--dry-run", "--force", "-h, --help", "--version"}) {
    INFO(part);
    CHECK(contains(outcome.output, part));
  }
  CHECK(run_forksafe({"-h"}).output == outcome.output);
}

TEST_CASE("each subcommand's help ends with an example", "[usage]") {
  for (const std::string name : {"list", "check", "diagnose"}) {
    const Outcome outcome = run_forksafe({name, "--help"});
    INFO(outcome.describe());
    CHECK(outcome.succeeded());
    const std::vector<std::string> lines = lines_of(outcome.output);
    REQUIRE_FALSE(lines.empty());
    CHECK(lines.back().compare(0, 18 + name.size(), "Example: forksafe " + name) == 0);
    for (const std::string& line : lines) CHECK(line.size() <= 80);
  }
}

TEST_CASE("the version", "[usage]") {
  check_output(run_forksafe({"--version"}), "forksafe " FORKSAFE_VERSION "\n");
}

TEST_CASE("bad usage is one line and status 2", "[usage]") {
  const struct {
    std::vector<std::string> words;
    std::string part;
  } cases[] = {
      {{"--no-such-option", "true"}, "--no-such-option: unknown option"},
      {{"-x", "true"}, "-x: unknown option"},
      {{"-5", "true"}, "-5: unknown option; see forksafe --help\n"},
      {{"--off", "-5x", "true"}, "-5x: unknown option"},
      {{"list", "5", "-6"}, "list -6: unknown option"},
      {{"--wait-ms"}, "--wait-ms needs a value"},
      {{"--log", "--", "true"}, "--log needs a value"},
      {{"--off"}, "no command was given"},
      {{"--"}, "no command was given"},
      {{"list"}, "list needs a process id, or -- and a command"},
      {{"list", "--"}, "list needs a process id, or -- and a command"},
      {{"list", "foo"}, "list foo: not a process id; for a command: forksafe list -- foo\n"},
      {{"check", "python3", "-c", "a b"}, "for a command: forksafe check -- python3 -c 'a b'\n"},
      {{"list", "0"}, "list 0: not a process id\n"},
      {{"list", "-5"}, "list -5: not a process id\n"},
      {{"list", "5x"}, "list 5x: not a process id\n"},
      {{"list", "99999999999999999999"}, "list 99999999999999999999: not a process id\n"},
      {{"list", "4294967297"}, "list 4294967297: not a process id\n"},
      {{"list", "5", "6"}, "list takes one process id"},
      {{"list", "5", "--", "true"}, "list takes a process id or a command, not both"},
      {{"list", "--all", "5"}, "list takes a process id or --all, not both"},
      {{"list", "--all", "--", "true"}, "list takes a command or --all, not both"},
      {{"list", "--no-such-option", "5"}, "list --no-such-option: unknown option"},
      {{"check", "--timeout", "soon", "5"},
       "check --timeout soon: not a number of seconds above 0"},
      {{"check", "--timeout", "0", "5"}, "check --timeout 0: not a number of seconds above 0"},
      {{"check", "--timeout", "nan", "5"}, "check --timeout nan: not a number of seconds above 0"},
      {{"--watch", "0", "true"}, "--watch 0: not a number of seconds above 0"},
      {{"--watch", "soon", "true"}, "--watch soon: not a number of seconds above 0"},
      {{"--watch-abort", "true"}, "--watch-abort needs --watch"},
      {{"diagnose", "foo"}, "diagnose foo: not a process id\n"},
      {{"diagnose", "--", "true"}, "diagnose takes a process id, not a command"},
      {{"diagnose"}, "diagnose needs a process id"},
  };
  for (const auto& c : cases) check_refused(run_forksafe(c.words), 2, {c.part});
}

TEST_CASE("a name with control characters stays on one line", "[usage]") {
  check_refused(run_forksafe({"./no\nsuch\x1b[31mprogram"}), 127, {"./no?such?[31mprogram"});
}

TEST_CASE("it is an error if the output can't be written", "[usage]") {
  check_refused(run_shell("$FORKSAFE_COMMAND --help >/dev/full"), 2, {"standard output"});
}

// ---- options

TEST_CASE("each option sets a variable in the environment of the command", "[options]") {
  const struct {
    std::vector<std::string> words;
    const char* variable;
    const char* value;
  } cases[] = {
      {{"--child-threads", "3"}, "FORKSAFE_CHILD_THREADS", "3"},
      {{"--child-threads=inherit"}, "FORKSAFE_CHILD_THREADS", "inherit"},
      {{"--child-threads", "auto"}, "FORKSAFE_CHILD_THREADS", "auto"},
      {{"--wait-ms", "250"}, "FORKSAFE_WAIT_MS", "250"},
      {{"--pool", "drop"}, "FORKSAFE_POOL", "drop"},
      {{"--log", "stderr"}, "FORKSAFE_LOG", "stderr"},
      {{"--log", "/tmp/it's a log"}, "FORKSAFE_LOG", "/tmp/it's a log"},
      {{"--off"}, "FORKSAFE", "0"},
      {{"--wait-ms", "1", "--wait-ms=2"}, "FORKSAFE_WAIT_MS", "2"},
      {{"--off", "--"}, "FORKSAFE", "0"},
  };
  for (const auto& c : cases) {
    // The option replaces a value of the environment.
    for (const Environment& before : {Environment{}, Environment{{c.variable, "1"}}}) {
      std::vector<std::string> words = c.words;
      words.insert(words.end(), {"sh", "-c", std::string("printf %s \"$") + c.variable + "\""});
      check_output(run_forksafe(words, before), c.value);
    }
  }
}

TEST_CASE("a relative path of the log begins at the current folder", "[options]") {
  const TemporaryDirectory folder;
  check_output(run_shell("cd '" + folder.path() +
                         "' && $FORKSAFE_COMMAND --log my.log sh -c 'cd / && echo $FORKSAFE_LOG'"),
               fs::canonical(folder.path()).string() + "/my.log\n");
}

TEST_CASE("with FORKSAFE=0 it sets only LD_PRELOAD", "[options]") {
  const auto sorted = [](const Outcome& outcome) {
    std::vector<std::string> lines = lines_of(outcome.output);
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  const Environment before = {{"FORKSAFE", "0"}, {"EMPTY", ""}, {"FORKSAFE_POOL", "drop"}};
  std::vector<std::string> expected = sorted(run_words({"env"}, before));
  CHECK(std::count(expected.begin(), expected.end(), "FORKSAFE=0") == 1);
  expected.push_back("LD_PRELOAD=" + forksafe_library());
  std::sort(expected.begin(), expected.end());
  CHECK(sorted(run_forksafe({"env"}, before)) == expected);
}

// scikit-learn sets the variable to FALSE unless it is set, and then children hang in MKL.
TEST_CASE("the fork handlers of LLVM's and Intel's OpenMP stay on", "[options]") {
  const auto dry = [](std::vector<std::string> words, const Environment& environment) {
    words.insert(words.begin(), "--dry-run");
    words.emplace_back("true");
    const Outcome outcome = run_forksafe(words, environment);
    INFO(outcome.describe());
    CHECK(outcome.succeeded());
    return contains(outcome.output, "\nKMP_INIT_AT_FORK=TRUE\n");
  };
  CHECK(dry({}, {}));
  CHECK_FALSE(dry({"--off"}, {}));
  CHECK_FALSE(dry({}, {{"FORKSAFE", "0"}}));
  const std::vector<std::string> print = {"sh", "-c", "echo ${KMP_INIT_AT_FORK-unset}"};
  check_output(run_forksafe(print), "TRUE\n");
  for (const char* value : {"FALSE", "1", ""}) {
    CHECK_FALSE(dry({}, {{"KMP_INIT_AT_FORK", value}}));
    check_output(run_forksafe(print, {{"KMP_INIT_AT_FORK", value}}), std::string(value) + "\n");
  }
}

TEST_CASE("a bad value is refused: the message names the option and what it accepts", "[options]") {
  const struct {
    const char* option;
    const char* value;
    const char* accepts;
  } cases[] = {
      {"--wait-ms", "soon", "give milliseconds from 0 to 3600000"},
      {"--wait-ms", "-1", "give milliseconds from 0 to 3600000"},
      {"--wait-ms", "99999999999999999999", "give milliseconds from 0 to 3600000"},
      {"--pool", "lose", "give keep or drop"},
      {"--child-threads", "0", "give inherit, auto or a number from 1 to 4096"},
      {"--child-threads", "two", "give inherit, auto or a number from 1 to 4096"},
      {"--log", "", "the value is empty"},
      {"--log", "/no such folder/log", "it can't be written: No such file or directory"},
      {"--log", "/tmp", "it can't be written: Is a directory"},
      {"--wait-ms", "", "the value is empty"},
      {"--wait-ms", "; going on with can't be read: give ", "give milliseconds from 0 to 3600000"},
  };
  for (const auto& c : cases) {
    const Outcome outcome = run_forksafe({c.option, c.value, "echo", "ran"});
    check_refused(outcome, 2, {std::string(c.option) + " " + cli::shell_quote(c.value), c.accepts});
    CHECK_FALSE(contains(outcome.output, "\nran"));
  }
  // --force does not help: the library would ignore the value.
  check_refused(run_forksafe({"--force", "--wait-ms", "soon", "true"}), 2, {"--wait-ms soon"});
}

TEST_CASE("the library reports a bad value of the environment in one line", "[options]") {
  const Outcome outcome = run_forksafe({"true"}, {{"FORKSAFE_WAIT_MS", "soon"}});
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
  CHECK(lines_of(outcome.output).size() == 1);
  CHECK(contains(outcome.output, "FORKSAFE_WAIT_MS=soon can't be read"));
}

TEST_CASE("a dry run prints and runs nothing", "[options]") {
  const TemporaryDirectory folder;
  const std::string made = folder.file("made");
  check_output(run_forksafe({"--dry-run", "--off", "--child-threads", "2", "--log", "/tmp/it's",
                             "--", "touch", made, "", "a b", "$(x)", "--", "--help"},
                            {{"LD_PRELOAD", "libm.so.6 libpthread.so.0"}}),
               "LD_PRELOAD=" + forksafe_library() +
                   ":libm.so.6:libpthread.so.0\n"
                   "FORKSAFE=0\n"
                   "FORKSAFE_CHILD_THREADS=2\n"
                   "FORKSAFE_LOG='/tmp/it'\\''s'\n"
                   "touch " +
                   made + " '' 'a b' '$(x)' -- --help\n");
  CHECK_FALSE(fs::exists(made));
  check_refused(run_forksafe({"--dry-run", "./no-such-program"}), 127, {"./no-such-program"});
}

// ---- untouched

TEST_CASE("the library is in the command, and in what the command starts", "[untouched]") {
  CHECK(ended(run_words({"grep", "-q", "libforksafe.so", "/proc/self/maps"}), 1));
  check_output(run_forksafe({"grep", "-q", "libforksafe.so", "/proc/self/maps"}), "");
  check_output(run_forksafe({"sh", "-c", std::string("(") + kIsMapped + "); exit 0"}), "mapped\n");
  check_output(run_forksafe({"true"}), "");
}

TEST_CASE("all words from the first one that is not an option belong to the command",
          "[untouched]") {
  const std::string nul(1, '\0');
  // argv[0] is the name as typed, not the path that was found.
  check_output(run_forksafe({"head", "-c", "999", "/proc/self/cmdline"}),
               "head" + nul + "-c" + nul + "999" + nul + "/proc/self/cmdline" + nul);
  const std::string show = "printf '<%s>' \"$0\" \"$@\"";
  check_output(run_forksafe({"sh", "-c", show, "name", "", "a b", "--", "--help", "--dry-run", "-h",
                             "--no-such-option", "list", "'\"\\$x"}),
               "<name><><a b><--><--help><--dry-run><-h><--no-such-option><list><'\"\\$x>");
  check_output(run_forksafe({"--", "sh", "-c", show, "--", "--", "--version"}),
               "<--><--><--version>");
  check_output(run_forksafe({"env", "--", "printf", "%s", "--version"}), "--version");
}

TEST_CASE("list, check and diagnose are subcommands only as the first word", "[untouched]") {
  const TemporaryDirectory folder;
  for (const std::string name : {"list", "check", "diagnose"}) {
    write_file(folder.file(name), "#!/bin/sh\necho my " + name + " $1\n", 0755);
    const Environment environment = {{"PATH", folder.path() + ":/usr/bin:/bin"}};
    check_output(run_forksafe({"--", name, "5"}, environment), "my " + name + " 5\n");
    check_output(run_forksafe({"--off", name, "5"}, environment), "my " + name + " 5\n");
    check_output(run_forksafe({folder.file(name), "5"}), "my " + name + " 5\n");
  }
}

/// forksafe with `words`, which runs them in its own process or watches them.
Outcome run_either(bool watch, std::vector<std::string> words) {
  if (watch) words.insert(words.begin(), {"--watch", "60"});
  return run_forksafe(words);
}

TEST_CASE("the exit status or the signal is the command's own", "[untouched]") {
  for (const bool watch : {false, true}) {
    for (const int status : {0, 1, 2, 77, 126, 127, 255}) {
      CHECK(ended(run_either(watch, {"sh", "-c", "exit " + std::to_string(status)}), status));
    }
    for (const int number : {SIGTERM, SIGKILL, SIGINT, SIGSEGV}) {
      const Outcome outcome =
          run_either(watch, {"sh", "-c", "kill -" + std::to_string(number) + " $$"});
      CHECK(outcome.end == Outcome::End::kKilled);
      CHECK(outcome.status == number);
    }
  }
}

TEST_CASE("it is the same process", "[untouched]") {
  check_output(
      run_shell("sh -c 'echo $$; exec $FORKSAFE_COMMAND sh -c \"echo \\$\\$\"' | uniq -c | "
                "grep -c '^ *2 '"),
      "1\n");
}

TEST_CASE("standard input and output are those of the command", "[untouched]") {
  check_output(run_shell("printf 'a\\0b\\377' | $FORKSAFE_COMMAND cat | od -An -tx1"),
               " 61 00 62 ff\n");
  check_output(run_shell("$FORKSAFE_COMMAND sh -c 'echo out; echo err >&2' 2>/dev/null"), "out\n");
  // If the reader ends, SIGPIPE ends the writer, as without forksafe.
  // Sorted, since head closes the pipe before it writes.
  check_output(run_shell("(($FORKSAFE_COMMAND yes; echo $? >&2) | head -n 1) 2>&1 | sort"),
               "141\ny\n");
}

TEST_CASE("signals, files and limits are inherited as they were", "[untouched]") {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigaddset(&blocked, SIGRTMIN + 3);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  const auto show = [](const std::string& command) {
    const std::string setting =
        "trap '' HUP USR1; umask 027; ulimit -n 99; exec 5</dev/null 8>&1; ";
    // Not dash, which clears the mask.
    const Outcome status = run_shell(setting + "exec " + command +
                                     " grep -E '^(Sig[BIC]|Shd|Cap|NoNew|Threads|Seccomp)' "
                                     "/proc/self/status");
    const Outcome rest = run_shell(setting + "exec <&-; exec " + command +
                                   " sh -c 'umask; ulimit -a; ls /proc/$$/fd'");
    return status.output + rest.output;
  };
  const std::string without = show("env");
  const std::string with = show("$FORKSAFE_COMMAND");
  const std::string watched = show("$FORKSAFE_COMMAND --watch 60");
  sigprocmask(SIG_SETMASK, &before, nullptr);
  INFO(without);
  CHECK(contains(without, "SigBlk:\t0000001000000800"));
  CHECK(contains(without, "SigIgn:\t0000000000000201"));
  CHECK(contains(without, "0027\n"));
  CHECK(contains(without, "\n5\n8\n"));
  CHECK(with == without);
  CHECK(watched == without);
}

// ---- terminal

TEST_CASE("the command keeps the terminal", "[terminal]") {
  const std::string look = " sh -c 'test -t 0 && test -t 1 && test -t 2 && echo all; stty -a'";
  const OnTerminal without = run_on_terminal("exec" + look);
  CHECK(contains(without.output, "all"));
  for (const std::string wrapper : {"exec $F", "exec $F --watch 60"}) {
    const OnTerminal with = run_on_terminal(wrapper + look);
    CHECK(with.status == 0);
    CHECK(with.output == without.output);
  }
}

TEST_CASE("Ctrl-C ends a command in a pipe", "[terminal]") {
  // The whole group gets the signal. The outer bash survives and prints how our command ended.
  const auto check_status = [](const std::string& script, const std::string& expected) {
    for (const std::string wrapper : {"env", "$F", "$F --watch 60"}) {
      const OnTerminal outcome =
          run_on_terminal("trap : INT; " + wrapper + " bash -c '" + script +
                          "' | cat >/dev/null; echo status ${PIPESTATUS[0]}");
      INFO(wrapper);
      CHECK(outcome.output == "ready\r\nstatus " + expected + "\r\n");
      CHECK(outcome.status == 0);
    }
  };
  check_status("echo ready >/dev/tty; exec sleep 20", "130");
  check_status("trap \"exit 3\" INT; echo ready >/dev/tty; while :; do sleep 0.05; done", "3");
  // One Ctrl-C is one signal.
  check_status(
      "trap \"((++n))\" INT; echo ready >/dev/tty; until ((n)); do sleep 0.05; done; "
      "sleep 0.5; exit $((10 + n))",
      "11");
}

TEST_CASE("a shell stops and continues the command", "[terminal]") {
  for (const std::string wrapper : {"env", "$F", "$F --watch 60"}) {
    for (const auto& [signal, status] : {std::pair("TSTP", "148"), std::pair("STOP", "147")}) {
      const OnTerminal outcome =
          run_on_terminal("set -m; " + wrapper + " bash -c 'kill -" + signal +
                          " $$; echo on; exit 3'; echo stopped $?; fg >/dev/null; echo end $?");
      INFO(wrapper << outcome.output);
      CHECK(contains(outcome.output, std::string("stopped ") + status + "\r\n"));
      CHECK(contains(outcome.output, "on\r\nend 3\r\n"));
    }
  }
}

TEST_CASE("a command in the background is stopped and continued by its id", "[terminal]") {
  const OnTerminal outcome = run_on_terminal(
      "set -m; $F --watch 60 bash -c '(sleep 0.5; kill -CONT $$) & kill -STOP $$; exit 3' & "
      "wait $!; echo end $?");
  INFO(outcome.output);
  CHECK(contains(outcome.output, "end 3\r\n"));
}

// ---- scripts

TEST_CASE("scripts run as without forksafe", "[script]") {
  const TemporaryDirectory folder;
  const auto file = [&](const std::string& name) { return folder.file(name); };
  const std::string mapped = std::string(kIsMapped) + "\n";
  write_file(file("sh"), "#!/bin/sh\n" + mapped, 0755);
  write_file(file("spaces"), "#! \t /bin/sh \t -e \n" + mapped, 0755);
  write_file(file("env"), "#!/usr/bin/env sh\n" + mapped, 0755);
  write_file(file("none"), mapped, 0755);
  write_file(file("empty line"), "#!\n" + mapped, 0755);
  // Longer than what the kernel reads: the kernel refuses, and execvp runs /bin/sh.
  write_file(file("long"), "#!/" + std::string(300, 'x') + "\n" + mapped, 0755);
  write_file(file("only here"), "#!/bin/sh\n" + mapped, 0755);
  fs::create_symlink(file("sh"), file("link"));
  for (const char* name : {"sh", "spaces", "env", "none", "empty line", "long", "link"}) {
    INFO(name);
    check_output(run_forksafe({file(name)}), "mapped\n");
    check_output(run_shell("cd '" + folder.path() + "' && $FORKSAFE_COMMAND './" + name + "'"),
                 "mapped\n");
    check_output(run_forksafe({name}, {{"PATH", "/no/such:" + folder.path() + ":/usr/bin:/bin"}}),
                 "mapped\n");
  }
  write_file(file("empty"), "", 0755);
  check_output(run_forksafe({file("empty")}), "");
  // An empty entry of PATH is the current folder.
  check_output(run_shell("cd '" + folder.path() + "' && $FORKSAFE_COMMAND 'only here'",
                         {{"PATH", ":/usr/bin:/bin"}}),
               "mapped\n");
}

TEST_CASE("a chain of interpreters runs if the kernel allows its length", "[script]") {
  const TemporaryDirectory folder;
  write_file(folder.file("0"), "#!/bin/echo\n", 0755);
  for (int i = 1; i < 8; ++i) {
    const std::string one_less = folder.file(std::to_string(i - 1));
    write_file(folder.file(std::to_string(i)), "#!" + one_less + "\n", 0755);
  }
  for (int i = 0; i < 5; ++i) {
    const Outcome outcome = run_forksafe({folder.file(std::to_string(i))});
    INFO(outcome.describe());
    CHECK(outcome.succeeded());
    CHECK(outcome.output == run_words({folder.file(std::to_string(i))}).output);
  }
  for (int i = 5; i < 8; ++i) {
    const std::string path = folder.file(std::to_string(i));
    check_refused(run_forksafe({path}), 126, {path, "more than 5 #! interpreters"});
  }
}

// Compared with env: for a missing interpreter, bash 5.3 gives 126, and bash up to 5.2 gave 127.
TEST_CASE("scripts that can't run end as with env", "[script]") {
  const TemporaryDirectory folder;
  const auto file = [&](const std::string& name) { return folder.file(name); };
  fs::create_directory(file("folder"));
  write_file(file("plain"), "echo\n");
  write_file(file("own"), "#!" + file("own") + "\n", 0755);
  const struct {
    const char* name;
    std::string interpreter;
    int status;
    std::string part;
  } cases[] = {
      {"missing", "/no/such/interpreter", 127, "its interpreter /no/such/interpreter"},
      {"crlf", "/bin/sh\r", 127, "ends with CR LF"},
      {"folder as one", file("folder"), 126, "its interpreter " + file("folder")},
      {"no run bit", file("plain"), 126, "no run bit"},
      {"of itself", file("own"), 126, "more than 5 #! interpreters"},
      {"under a file", file("plain") + "/x", 126, "Not a directory"},
  };
  for (const auto& c : cases) {
    write_file(file(c.name), "#!" + c.interpreter + "\necho ran\n", 0755);
    CHECK(ended(run_words({"env", file(c.name)}), c.status));
    check_refused(run_forksafe({file(c.name)}), c.status, {file(c.name), c.part});
    // With --force the kernel decides.
    check_refused(run_forksafe({"--force", file(c.name)}), c.status, {file(c.name)});
  }
}

// ---- not found

TEST_CASE("a command that is missing or can't be run ends as in bash", "[not found]") {
  const TemporaryDirectory folder;
  const auto file = [&](const std::string& name) { return folder.file(name); };
  fs::create_directory(file("folder"));
  write_file(file("no run bit"), "echo\n");
  fs::create_symlink(file("loop"), file("loop"));
  fs::create_symlink(file("nothing"), file("dangling"));
  const struct {
    std::string name;
    int status;
    std::string part;
  } cases[] = {
      {"forksafe-no-such-program", 127, "forksafe-no-such-program: no such command in PATH"},
      {"", 127, "''"},
      {file("missing"), 127, "No such file"},
      {file("dangling"), 127, "No such file"},
      {file("folder"), 126, "Is a directory"},
      {file("no run bit"), 126, "no run bit"},
      {file("loop"), 126, "Too many levels"},
      {file("no run bit") + "/x", 126, "Not a directory"},
      {"/dev/null", 126, "/dev/null"},
  };
  for (const auto& c : cases) {
    CHECK(ended(run_words({"bash", "-c", "\"$0\"; exit", c.name}), c.status));
    check_refused(run_forksafe({c.name}), c.status, {c.name, c.part});
  }
}

TEST_CASE("PATH is searched as execvp does", "[not found]") {
  const TemporaryDirectory folder;
  for (const char* name : {"/a", "/b", "/c", "/a/tool"}) fs::create_directory(folder.path() + name);
  write_file(folder.file("b/tool"), "#!/bin/sh\necho no\n", 0644);
  write_file(folder.file("c/tool"), "#!/bin/sh\necho c\n", 0755);
  const std::string a = folder.file("a"), b = folder.file("b"), c = folder.file("c");
  check_output(run_forksafe({"tool"}, {{"PATH", a + ":" + b + "::" + c}}), "c\n");
  check_refused(run_forksafe({"tool"}, {{"PATH", a + ":" + b}}), 126, {b + "/tool", "no run bit"});
  check_refused(run_forksafe({"tool"}, {{"PATH", a}}), 127, {"tool"});
  check_output(run_shell("unset PATH; $FORKSAFE_COMMAND echo found"), "found\n");
  // A folder that can't be searched (root can).
  if (geteuid() != 0) {
    REQUIRE(chmod(b.c_str(), 0) == 0);
    check_refused(run_forksafe({"tool"}, {{"PATH", b}}), 127, {"tool: no such command in PATH"});
    REQUIRE(chmod(b.c_str(), 0755) == 0);
  }
}

// ---- elf

TEST_CASE("a program that the library can't be preloaded into is refused with the reason",
          "[elf]") {
  const TemporaryDirectory folder;
  const auto refused = [&](const std::string& name, const std::string& content,
                           const std::vector<std::string>& parts) {
    write_file(folder.file(name), content, 0755);
    check_refused(run_forksafe({folder.file(name)}), 2, parts);
    check_refused(run_forksafe({"--dry-run", folder.file(name)}), 2, {folder.file(name)});
    CHECK(run_forksafe({"--dry-run", "--force", folder.file(name)}).succeeded());
  };
  refused("narrow", elf_file<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386, "/lib/ld-linux.so.2"),
          {"narrow: a 32-bit program, and forksafe is 64-bit"});
  refused("foreign",
          own_elf(own_machine() == EM_AARCH64 ? EM_X86_64 : EM_AARCH64, "/lib/ld-linux.so.1"),
          {"foreign: made for another processor (ELF machine "});
  refused("musl", own_elf(own_machine(), "/lib/ld-musl-x86_64.so.1"),
          {"musl: linked with musl (/lib/ld-musl-x86_64.so.1)"});
  refused("static", own_elf(own_machine(), ""), {"static: statically linked"});

  // The same for a script with such an interpreter.
  write_file(folder.file("script"), "#!" + folder.file("musl") + " -x\n", 0755);
  check_refused(run_forksafe({folder.file("script")}), 2, {folder.file("musl"), "musl"});
}

TEST_CASE("the loader takes the library into the program that it is given", "[elf]") {
  Dl_info loader = {};
  REQUIRE(dladdr(reinterpret_cast<void*>(getauxval(AT_BASE)), &loader) != 0);
  const Outcome outcome =
      run_forksafe({loader.dli_fname, installed("grep"), "-c", "libforksafe", "/proc/self/maps"});
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
  // That of musl is another libc's.
  const TemporaryDirectory folder;
  const std::string musl = folder.file("ld-musl-x86_64.so.1");
  write_file(musl, own_elf(own_machine(), ""), 0755);
  check_refused(run_forksafe({musl, "true"}), 2, {"musl"});
}

TEST_CASE("an ELF file whose loader is missing ends as in bash", "[elf]") {
  const TemporaryDirectory folder;
  const std::string path = folder.file("program");
  write_file(path, own_elf(own_machine(), "/no/such/loader.so"), 0755);
  check_refused(run_forksafe({path}), 127, {path, "/no/such/loader.so"});
}

TEST_CASE("the kernel reports a truncated ELF file", "[elf]") {
  const TemporaryDirectory folder;
  const std::string path = folder.file("program");
  write_file(path, own_elf(own_machine(), "").substr(0, 20), 0755);
  const Outcome outcome = run_forksafe({path});
  INFO(outcome.describe());
  CHECK(outcome.end == Outcome::End::kExited);
  CHECK(outcome.status == run_words({"env", path}).status);
}

TEST_CASE("a real static program: refused, or run without the library", "[static]") {
#ifdef STATIC_PROGRAM
  check_output(run_words({STATIC_PROGRAM}), "static\n");
  check_refused(run_forksafe({STATIC_PROGRAM}), 2,
                {STATIC_PROGRAM, "statically linked",
                 "if it starts another program, put forksafe before that one (tini forksafe "});
  check_output(run_forksafe({"--force", STATIC_PROGRAM}), "static\n");
#else
  skip("no static libc");
#endif
}

// ---- where the library is

TEST_CASE("a copied build folder has its own library", "[where]") {
  const TemporaryDirectory folder;
  const std::string command = copy_built(folder.file("build"));
  const Outcome outcome =
      run_words({command, "sh", "-c", "echo $LD_PRELOAD; " + std::string(kIsMapped)});
  check_output(outcome,
               fs::canonical(folder.path()).string() + "/build/shim/libforksafe.so\nmapped\n");
}

TEST_CASE("an installed tree can be moved as a whole, and linked to", "[where]") {
  const TemporaryDirectory folder;
  const std::string command = copy_installed(folder.file("anywhere"));
  const std::string root = fs::canonical(folder.path()).string() + "/anywhere";
  const std::string show = "echo $LD_PRELOAD; " + std::string(kIsMapped);
  const std::string expected = installed_library(root + "/" FORKSAFE_BINDIR) + "\nmapped\n";
  check_output(run_words({command, "sh", "-c", show}), expected);
  fs::create_symlink(command, folder.file("fs"));
  check_output(run_words({folder.file("fs"), "sh", "-c", show}), expected);
}

TEST_CASE("no path of the prefix is in the command", "[where]") {
  const std::string command = read_file(forksafe_command());
  CHECK(contains(command, FORKSAFE_LIBRARY));
  // /usr/bin is also in the PATH that counts where none is set.
  if (std::string(FORKSAFE_PREFIX) != "/usr") {
    CHECK_FALSE(contains(command, FORKSAFE_PREFIX "/" FORKSAFE_BINDIR));
  }
  const std::string below = FORKSAFE_LIBRARY;  // "../lib/..."
  CHECK_FALSE(contains(command, FORKSAFE_PREFIX + below.substr(below.rfind("..") + 2)));
}

TEST_CASE("a library path that LD_PRELOAD would split at a space works", "[where]") {
  const TemporaryDirectory folder;
  const std::string command = copy_installed(folder.file("a b"));
  const std::string libraries =
      fs::path(run_words({command, "--print-library"}).output).parent_path();
  const std::string show = "echo \"$LD_PRELOAD|$LD_LIBRARY_PATH\"; " + std::string(kIsMapped);
  check_output(run_words({command, "sh", "-c", show}, {{"LD_LIBRARY_PATH", ""}}),
               "libforksafe.so|" + libraries + "\nmapped\n");
  // The entries of the user stay, and the folder is added only once.
  check_output(run_words({command, command, "sh", "-c", show},
                         {{"LD_PRELOAD", "libm.so.6"}, {"LD_LIBRARY_PATH", "/lib:/usr/lib"}}),
               "libforksafe.so:libm.so.6|" + libraries + ":/lib:/usr/lib\nmapped\n");
}

TEST_CASE("a library path that the loader would split is refused", "[where]") {
  const TemporaryDirectory folder;
  for (const std::string name : {"a:b", "a ;b"}) {
    const std::string command = copy_built(folder.file(name));
    for (const std::string word : {"true", "--print-library"}) {
      check_refused(run_words({command, word}), 2, {name + "/shim/libforksafe.so", "a folder"});
    }
  }
}

TEST_CASE("a library that is missing or broken is refused", "[where]") {
  const TemporaryDirectory folder;
  const std::string command = copy_built(folder.file("build"));
  const std::string library = folder.file("build/shim/libforksafe.so");
  const std::string whole = read_file(library);
  check_output(run_words({command, "true"}), "");
  check_output(run_words({command, "--print-library"}), fs::canonical(library).string() + "\n");

  fs::remove(library);
  for (const std::string word : {"true", "--print-library"}) {
    check_refused(run_words({command, word}), 2, {library, "No such file"});
  }
  // With --force the loader reports it, and the command runs.
  const Outcome forced = run_words({command, "--force", "echo", "ran"});
  CHECK(forced.succeeded());
  CHECK(contains(forced.output, "ran\n"));

  fs::create_directory(library);
  check_refused(run_words({command, "true"}), 2, {library, "not a file"});
  fs::remove(library);

  write_file(library, "");
  check_refused(run_words({command, "true"}), 2, {library, "file too short"});
  write_file(library, std::string(5000, 'x'));
  check_refused(run_words({command, "true"}), 2, {library, "invalid ELF header"});
  for (const size_t size : {whole.size() / 3, whole.size() / 2, whole.size() - 1}) {
    write_file(library, whole.substr(0, size));
    check_refused(run_words({command, "true"}), 2, {library, "cut off"});
  }
  write_file(library, elf_file<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386, "x"));
  check_refused(run_words({command, "true"}), 2, {library});
  write_file(library, whole);
  check_output(run_words({command, "true"}), "");
}

// ---- LD_PRELOAD

TEST_CASE("LD_PRELOAD has our library first and once, and the others in their order", "[preload]") {
  const TemporaryDirectory folder;
  const std::string ours = folder.file("libforksafe.so");
  const std::string same = folder.file("same.so"), hard = folder.file("hard.so");
  const std::string copy = folder.file("copy.so");
  write_file(ours, "x");
  write_file(copy, "x");
  fs::create_symlink(ours, same);
  fs::create_hard_link(ours, hard);

  CHECK(cli::edit_preload("", ours) == ours);
  CHECK(cli::edit_preload(" :: ", ours) == ours);
  CHECK(cli::edit_preload(ours, ours) == ours);
  CHECK(cli::edit_preload("a.so", ours) == ours + ":a.so");
  CHECK(cli::edit_preload("b.so:a.so c.so", ours) == ours + ":b.so:a.so:c.so");
  CHECK(cli::edit_preload("b.so " + ours + ":a.so", ours) == ours + ":b.so:a.so");
  CHECK(cli::edit_preload("b.so:" + ours + " " + ours, ours) == ours + ":b.so");
  CHECK(cli::edit_preload(same + ":a.so:" + hard, ours) == ours + ":a.so");
  CHECK(cli::edit_preload(copy, ours) == ours + ":" + copy);
  // The loader does not search the current folder for a name without a slash.
  CHECK(cli::edit_preload("same.so", ours) == ours + ":same.so");
  // Two builds of the library must not be in one process.
  CHECK(cli::edit_preload("libforksafe.so:/opt/libforksafe.so:a.so", ours) == ours + ":a.so");
  CHECK(cli::edit_preload("/no/such.so", "/no/such/library.so") ==
        "/no/such/library.so:/no/such.so");
}

TEST_CASE("LD_PRELOAD keeps all entries of others", "[preload]") {
  const std::string print = "echo $LD_PRELOAD";
  check_output(run_forksafe({forksafe_command(), "sh", "-c", print}), forksafe_library() + "\n");
  check_output(run_forksafe({"sh", "-c", print}, {{"LD_PRELOAD", "libm.so.6"}}),
               forksafe_library() + ":libm.so.6\n");
  const TemporaryDirectory folder;
  const std::string other = folder.file("libforksafe.so");
  fs::copy_file(forksafe_library(), other);
  check_output(run_forksafe({"sh", "-c", print}, {{"LD_PRELOAD", other}}),
               forksafe_library() + "\n");
}

TEST_CASE("the check of the library leaves the environment as it is", "[preload]") {
  setenv("FORKSAFE_WAIT_MS", "soon", 1);
  cli::check_library(forksafe_library());
  CHECK(getenv("FORKSAFE_WAIT_MS") == std::string("soon"));
  CHECK(getenv("FORKSAFE") == nullptr);
  unsetenv("FORKSAFE_WAIT_MS");
}

TEST_CASE("words are quoted for a shell only if needed", "[preload]") {
  for (const std::string word :
       {"", " ", "a b", "it's", "$x", "a\nb", "*", "--a=b", "/a/b-c_d.e"}) {
    check_output(run_shell("printf %s " + cli::shell_quote(word)), word);
  }
  CHECK(cli::shell_quote("/a/b-c_d.e") == "/a/b-c_d.e");
}

// ---- sanitizers

namespace {

std::string asan_program() {
#ifdef ASAN_PROGRAM
  return ASAN_PROGRAM;
#else
  skip("the compiler has no AddressSanitizer");
#endif
}

}  // namespace

TEST_CASE("a program with AddressSanitizer starts and still finds errors", "[sanitizer]") {
  const std::string show = "echo $ASAN_OPTIONS; " + std::string(kIsMapped);
  const Environment none = {{"ASAN_OPTIONS", ""}};  // meson's test sets some
  check_output(run_forksafe({asan_program(), show}, none),
               "child 0\nverify_asan_link_order=0\nmapped\n");
  check_output(run_forksafe({asan_program(), show}, {{"ASAN_OPTIONS", "exitcode=7"}}),
               "child 0\nverify_asan_link_order=0:exitcode=7\nmapped\n");
  const Outcome found =
      run_forksafe({asan_program(), "true", "overflow"}, {{"ASAN_OPTIONS", "exitcode=7"}});
  INFO(found.describe());
  CHECK(ended(found, 7));
  CHECK(contains(found.output, "heap-buffer-overflow"));
  // The program that it starts does not have AddressSanitizer's runtime.
  check_output(run_forksafe({asan_program(), "! grep -q libasan /proc/self/maps"}, none),
               "child 0\n");
}

TEST_CASE("only a program with AddressSanitizer gets its option, unless the user has set it",
          "[sanitizer]") {
  const auto dry = [](const std::string& program, const Environment& environment) {
    const Outcome outcome = run_forksafe({"--dry-run", program}, environment);
    INFO(outcome.describe());
    CHECK(outcome.succeeded());
    return outcome.output;
  };
  const std::string option = "\nASAN_OPTIONS=verify_asan_link_order=0\n";
  CHECK(contains(dry(asan_program(), {{"ASAN_OPTIONS", ""}}), option));
  CHECK_FALSE(contains(dry("true", {}), "ASAN_OPTIONS"));
  CHECK(contains(dry("true", {{"ASAN_OPTIONS", ""}, {"LD_PRELOAD", "libasan.so.8"}}), option));
  CHECK_FALSE(contains(dry(asan_program(), {{"ASAN_OPTIONS", "verify_asan_link_order=1"}}),
                       "ASAN_OPTIONS"));
}

// ---- programs that people run

TEST_CASE("bash", "[bash]") {
  installed("bash");
  check_output(run_forksafe({"bash", "-c", "a=$(" + std::string(kIsMapped) + "); echo $a $(:) $?"}),
               "mapped 0\n");
}

TEST_CASE("python3", "[python3]") {
  installed("python3");
  check_output(run_forksafe({"python3", "-c",
                             "import os, sys\n"
                             "mapped = 'libforksafe.so' in open('/proc/self/maps').read()\n"
                             "print(mapped, sys.argv[1:], flush=True)\n"
                             "pid = os.fork()\n"
                             "if not pid: os._exit(7)\n"
                             "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
                             "a b", "--", "-h"}),
               "True ['a b', '--', '-h']\n7\n");
}

TEST_CASE("R", "[R]") {
  installed("R");
  check_output(run_forksafe({"R", "--vanilla", "-s", "-e",
                             "cat(any(grepl('libforksafe.so', readLines('/proc/self/maps'))), "
                             "unlist(parallel::mclapply(1:4, function(i) i * i, mc.cores = 2)), "
                             "'\\n')"}),
               "TRUE 1 4 9 16 \n");
}

TEST_CASE("make -j", "[make]") {
  installed("make");
  const TemporaryDirectory folder;
  write_file(folder.file("Makefile"),
             "all: a b c d e f g h\n"
             "a b c d e f g h:\n\t@" +
                 std::string(kIsMapped) + "\n");
  std::string expected;
  for (int i = 0; i < 8; ++i) expected += "mapped\n";
  check_output(run_forksafe({"make", "-j4", "-s", "--no-print-directory", "-C", folder.path()}),
               expected);
}

// ---- AT_SECURE

namespace {

/// Copies of grep with set-user-ID bits or capabilities, and our command, in a folder that nobody
/// may read. Each answer of forksafe is compared with what the loader really does.
class Privileged {
 public:
  Privileged() : command_(copy_built(folder_.file("build"))), grep_(installed("grep")) {
    if (geteuid() != 0) skip("only root can make such programs");
    installed("setpriv");
  }

  std::string program(const std::string& name) {
    fs::copy_file(grep_, folder_.file(name));
    return folder_.file(name);
  }

  /// Whether the loader preloads the library for `user` (options of setpriv).
  bool check_verdict(const std::string& user, const std::string& path, const std::string& reason) {
    const auto run = [&](const std::string& option) {
      return run_shell("setpriv " + user + " -- '" + command_ + "' " + option + " '" + path +
                       "' -q libforksafe.so /proc/self/maps");
    };
    INFO(user << " " << path);
    const Outcome forced = run("--force --");
    INFO(forced.describe());
    REQUIRE(forced.end == Outcome::End::kExited);
    REQUIRE(forced.status <= 1);
    const bool preloaded = forced.status == 0;
    if (preloaded) {
      check_output(run("--"), "");
    } else {
      check_refused(run("--"), 2, {path, reason, "LD_PRELOAD"});
    }
    return preloaded;
  }

 private:
  TemporaryDirectory folder_;
  std::string command_;
  std::string grep_;
};

constexpr const char* kRoot = "";
constexpr const char* kNobody = "--reuid 65534 --regid 65534 --clear-groups";
constexpr const char* kNobodyNoNew = "--reuid 65534 --regid 65534 --clear-groups --no-new-privs";

}  // namespace

TEST_CASE("setuid and setgid programs are refused if the loader ignores LD_PRELOAD", "[secure]") {
  Privileged privileged;
  const auto make = [&](const std::string& name, uid_t user, gid_t group, mode_t mode) {
    const std::string path = privileged.program(name);
    REQUIRE(chown(path.c_str(), user, group) == 0);
    REQUIRE(chmod(path.c_str(), mode) == 0);
    return path;
  };
  const std::string plain = make("plain", 0, 0, 0755);
  const std::string root = make("setuid-root", 0, 0, 04755);
  const std::string other = make("setuid-other", 1234, 0, 04755);
  const std::string nobody = make("setuid-nobody", 65534, 65534, 06755);
  const std::string group = make("setgid", 0, 1234, 02755);
  const std::string locking = make("setgid-no-run", 0, 1234, 02745);

  CHECK(privileged.check_verdict(kRoot, plain, ""));
  CHECK(privileged.check_verdict(kNobody, plain, ""));
  CHECK(privileged.check_verdict(kRoot, root, ""));
  CHECK_FALSE(privileged.check_verdict(kNobody, root, "it is setuid to another user"));
  CHECK_FALSE(privileged.check_verdict(kRoot, other, "it is setuid to another user"));
  CHECK_FALSE(privileged.check_verdict(kNobody, other, "it is setuid to another user"));
  CHECK_FALSE(privileged.check_verdict(kRoot, nobody, "it is setuid to another user"));
  CHECK(privileged.check_verdict(kNobody, nobody, ""));
  CHECK_FALSE(privileged.check_verdict(kRoot, group, "it is setgid to another group"));
  CHECK(privileged.check_verdict(kRoot, locking, ""));
  CHECK(privileged.check_verdict(kNobodyNoNew, root, ""));
  CHECK(privileged.check_verdict(kNobodyNoNew, group, ""));
  // The real and effective users of the process differ, whatever the file has.
  CHECK_FALSE(privileged.check_verdict("--euid 65534", plain, "effective user"));
}

TEST_CASE("programs with capabilities are refused if the loader ignores LD_PRELOAD",
          "[capabilities]") {
  const std::string setcap = installed("setcap");
  Privileged privileged;
  const auto make = [&](const std::string& name, const std::string& capabilities) {
    const std::string path = privileged.program(name);
    if (!run_words({setcap, capabilities, path}).succeeded()) {
      skip("setcap is not allowed here");
    }
    return path;
  };
  const std::string effective = make("effective", "cap_net_bind_service=ep");
  const std::string permitted = make("permitted", "cap_net_bind_service=p");
  const std::string inheritable = make("inheritable", "cap_net_bind_service=i");
  const std::string reason = "it has file capabilities";
  CHECK(privileged.check_verdict(kRoot, effective, ""));
  CHECK_FALSE(privileged.check_verdict(kNobody, effective, reason));
  CHECK_FALSE(privileged.check_verdict(kNobody, permitted, reason));
  CHECK(privileged.check_verdict(kNobody, inheritable, ""));
  CHECK_FALSE(privileged.check_verdict(std::string(kNobody) + " --inh-caps +net_bind_service",
                                       inheritable, reason));
  CHECK_FALSE(privileged.check_verdict(kNobodyNoNew, effective, reason));
  CHECK(privileged.check_verdict(kNobodyNoNew, permitted, ""));
  CHECK(privileged.check_verdict(std::string(kNobody) + " --bounding-set -net_bind_service",
                                 permitted, ""));
}

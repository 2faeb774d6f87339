// SPDX-License-Identifier: Apache-2.0
#include "background.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>

namespace forksafe_test {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void become(const Command& command) {
  for (const auto& [name, value] : command.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& a : command.arguments) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

std::string text_of(int file) {
  struct stat status = {};
  fstat(file, &status);
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t size = pread(file, text.data(), text.size(), 0);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

// Of the processes in the background. skip() runs no destructors.
std::set<pid_t> sessions;
void end_sessions() {
  for (const pid_t leader : sessions) end_session(leader);
}

std::string describe_status(int status) {
  return WIFEXITED(status) ? "status " + std::to_string(WEXITSTATUS(status))
                           : "signal " + std::to_string(WTERMSIG(status));
}

}  // namespace

std::string Diagnosis::at(const char* key) const {
  return process[key].is_string() ? process[key].get<std::string>() : process[key].dump();
}

Diagnosis diagnosis_of(const Answer& answer) {
  INFO(answer.describe());
  REQUIRE(answer.status <= 2);
  CHECK(answer.errors.empty());
  const Json json = answer.json();
  REQUIRE(json.size() == 1);
  return {answer.status, json[0]};
}

Background::Background(const Command& command)
    : output_(memfd_create("output", MFD_CLOEXEC)), errors_(memfd_create("errors", MFD_CLOEXEC)) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_ = fork();
  if (output_ < 0 || errors_ < 0 || pid_ < 0) throw std::runtime_error("can't start a process");
  if (pid_ != 0) {
    static const bool registered = at_quick_exit(end_sessions) == 0;
    if (registered) sessions.insert(pid_);
    return;
  }
  setsid();
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(output_, STDOUT_FILENO);
  dup2(errors_, STDERR_FILENO);
  become(command);
}

Background::~Background() {
  end_session(pid_);
  sessions.erase(pid_);
  close(output_);
  close(errors_);
}

std::string Background::output() const { return text_of(output_); }
std::string Background::errors() const { return text_of(errors_); }

bool Background::has_ended() {
  ended_ = ended_ || waitpid(pid_, &status_, WNOHANG) == pid_;
  return ended_;
}

int Background::wait(double seconds) {
  const auto start = Clock::now();
  while (!has_ended()) {
    if (seconds_since(start) > seconds) {
      throw std::runtime_error("it goes on after its time:\n" + output() + errors());
    }
    usleep(2000);
  }
  return status_;
}

pid_t Background::ready() {
  const auto start = Clock::now();
  for (;;) {
    const std::string text = output();
    const size_t at = text.find("ready ");
    if (at != std::string::npos && text.find('\n', at) != std::string::npos) {
      return std::stoi(text.substr(at + 6));
    }
    if (has_ended()) {
      throw std::runtime_error("it ended with " + describe_status(status_) + "\n" + text +
                               errors());
    }
    if (seconds_since(start) > 30) throw std::runtime_error("not ready\n" + text + errors());
    usleep(2000);
  }
}

Json Answer::json() const {
  INFO(describe());
  const Json result = Json::parse(output, nullptr, false);
  REQUIRE_FALSE(result.is_discarded());
  return result;
}

std::string Answer::describe() const {
  return "status " + std::to_string(status) + "\n" + output + "\n-- errors:\n" + errors;
}

Answer ask(std::vector<std::string> words, const Environment& environment) {
  words.insert(words.begin(), forksafe_command());
  Command command;
  command.arguments = words;
  command.environment = environment;
  Background asked(command);
  const int status = asked.wait(150);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), asked.output(),
          asked.errors()};
}

Command specimen(const Blas& blas, const std::vector<std::string>& situation) {
  Command command;
  command.arguments = {SPECIMEN, blas.path, blas.prefix, blas.suffix};
  command.arguments.insert(command.arguments.end(), situation.begin(), situation.end());
  command.environment = {{"LD_LIBRARY_PATH", blas.library_path},
                         {"OMP_NUM_THREADS", "2"},
                         {"OPENBLAS_NUM_THREADS", "2"},
                         {"BLIS_NUM_THREADS", "2"}};
  return command;
}

Command specimen(const std::vector<std::string>& situation) {
  return specimen(Blas{"", "", "", "", false}, situation);
}

Command omp_specimen(const std::string& situation) {
  Command command;
  command.arguments = {OMP_SPECIMEN, situation};
  return command;
}

Command region_specimen(const std::string& runtime, const std::string& value) {
  std::vector<std::string> situation = {"region"};
  if (!value.empty()) situation.push_back(value);
  return specimen(Blas{runtime, "", "", "", false}, situation);
}

Command static_omp_specimen(const std::string& situation, bool exported) {
  Command command = omp_specimen(situation);
#ifdef OMP_STATIC
  command.arguments[0] = exported ? OMP_STATIC_EXPORTED : OMP_STATIC;
#else
  skip(exported ? "no static libgomp to export" : "no static libgomp");
#endif
  return command;
}

Command python_that_forks_in_c(const std::string& library, const std::string& in_child) {
  Command command;
  command.arguments = {debian_python(), "-c",
                       "import ctypes, os, threading\n"
                       "go_on = True\n"
                       "def compute():\n"
                       "    while go_on: pass\n"
                       "threading.Thread(target=compute).start()\n"
                       "child = ctypes." +
                           library + "('" CREW "').crew_fork()\n" + "if child == 0:\n" + in_child +
                           "    os._exit(0)\n"
                           "go_on = False\n"
                           "print('ready', child, flush=True)\n"
                           "os.waitpid(child, 0)\n"};
  return command;
}

Command static_blas_specimen() {
#ifdef BLAS_INSIDE
  return specimen(Blas{BLAS_INSIDE, "", "", "", false}, {"workers"});
#else
  skip("no static OpenBLAS");
#endif
}

void check_refused(const Answer& answer, const std::string& part) {
  INFO(answer.describe());
  INFO("in it: " << part);
  CHECK(answer.status == 2);
  CHECK(answer.output.empty());
  CHECK(answer.errors.compare(0, 10, "forksafe: ") == 0);
  CHECK(std::count(answer.errors.begin(), answer.errors.end(), '\n') == 1);
  CHECK(contains(answer.errors, part));
}

std::string on_terminal(const std::vector<std::string>& words, const Environment& environment) {
  int terminal;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    Command command;
    command.arguments = words;
    command.environment = environment;
    alarm(30);
    become(command);
  }
  std::string output;
  char buffer[4096];
  ssize_t size;
  while ((size = read(terminal, buffer, sizeof buffer)) > 0) {
    output.append(buffer, static_cast<size_t>(size));
  }
  waitpid(child, nullptr, 0);
  close(terminal);
  return output;
}

char state_of(pid_t pid) {
  const std::string stat = read_file("/proc/" + word(pid) + "/stat");
  const size_t end_of_name = stat.rfind(')');
  return end_of_name != std::string::npos ? stat[end_of_name + 2] : '\0';
}

bool is_running(const std::string& part_of_command_line) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    if (atoi(entry.path().filename().c_str()) == 0) continue;
    std::string text = read_file(entry.path() / "cmdline");
    std::replace(text.begin(), text.end(), '\0', ' ');
    if (contains(text, part_of_command_line)) return true;
  }
  return false;
}

}  // namespace forksafe_test

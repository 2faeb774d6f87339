// SPDX-License-Identifier: Apache-2.0
// Forks while other threads are inside BLAS calls, and compares every result to the bit with one
// that was computed before any fork.
//
// The program loads a BLAS by its path, computes a reference, starts threads that compute until the
// end, and forks. Each child computes and compares, and so do the threads of the parent. For each
// child that got the right result the program prints a dot, so the watchdog sees when it stops.
//
// FORKSAFE_TEST_MOST_FORKS is the most times that it forks, whatever its options say.
// FORKSAFE_TEST_LATE is a limit (limits.h) that it sets before the first fork.
//
// Exit status: 0 all results are exact; 1 a child or the parent got another result; 2 wrong usage.
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "blas.h"
#include "limits.h"

namespace {

int count_threads() {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* entry = readdir(tasks)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(tasks);
  // QEMU has one thread of its own. "no": the architecture runs without it.
  const char* emulator = getenv("FORKSAFE_TEST_EMULATED");
  return emulator != nullptr && strcmp(emulator, "no") != 0 ? count - 1 : count;
}

// How many kB of mappings as large as OpenBLAS's buffers (16 MB and more) are in memory (proc(5),
// smaps). A thread's stack is smaller, but in glibc 2.43 several stacks may be one mapping.
long resident_buffers_kb() {
  std::ifstream smaps("/proc/self/smaps");
  long total = 0;
  bool counts = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long begin, end, inode;
    char protection[5];
    long kb;
    int length = 0;
    if (sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %lu%n", &begin, &end, protection, &inode,
               &length) == 4) {
      const bool named = line.find_first_not_of(' ', static_cast<size_t>(length)) != line.npos;
      counts = end - begin >= 16U << 20 && strcmp(protection, "rw-p") == 0 && inode == 0 && !named;
    } else if (counts && sscanf(line.c_str(), "Rss: %ld", &kb) == 1) {
      total += kb;
    }
  }
  return total;
}

// An operation and its right result. With --or-one-thread, the result that one thread gives is
// right too.
struct Check {
  Operation operation;
  Matrix reference;
  Matrix one_thread_reference;  // empty without --or-one-thread
  bool holds() const {
    const Matrix result = operation.result();
    return same(result, reference) || same(result, one_thread_reference);
  }
};

struct Job {
  std::vector<Check> checks;
  std::string child;         // what a child does: compute, exit, exec, nothing, look (at buffers)
  int child_threads_at_end;  // how many threads a child must have at its end; 0: any number
  bool errno_is_kept;        // whether fork must keep errno; Intel's OpenMP changes it
};

[[noreturn]] void run_child(const Job& job) {
  if (job.child == "exec") {
    execl("/proc/self/exe", "blas_forker", "--op=none", static_cast<char*>(nullptr));
    _exit(4);
  }
  if (job.child == "nothing") exit(0);
  if (job.child == "look" && resident_buffers_kb() != 0) {
    fail(6, "a child has " + std::to_string(resident_buffers_kb()) + " kB of its parent's buffers");
  }
  for (int i = 0; i < 2; ++i) {
    for (const Check& check : job.checks) {
      if (!check.holds()) _exit(3);
    }
  }
  if (job.child_threads_at_end != 0 && count_threads() != job.child_threads_at_end) {
    fail(5, "a child has " + std::to_string(count_threads()) + " threads");
  }
  if (job.child == "exit") exit(0);
  _exit(0);
}

// Waits for a child. Returns whether it ended with status 0.
bool answered_well(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail(1, "waitpid");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  fprintf(stderr, "a child ended with wait status 0x%x\n", static_cast<unsigned>(status));
  return false;
}

void fork_many(const Job& job, int forks, int pause_us) {
  for (int i = 0; i < forks; ++i) {
    errno = 4242;
    const pid_t child = fork();
    if (child < 0) fail(1, "fork");
    if (job.errno_is_kept && errno != 4242) fail(1, "fork changed errno");
    if (child == 0) run_child(job);
    if (!answered_well(child)) fail(1, "inexact or crashed in a child");
    if (write(STDOUT_FILENO, ".", 1) != 1) _exit(1);
    if (pause_us != 0) usleep(static_cast<useconds_t>(pause_us));
  }
}

// Forks in a thread with a stack of that size; 0: the usual one.
void fork_in_thread(int stack_kb, const std::function<void()>& forks) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (stack_kb != 0 &&
      pthread_attr_setstacksize(&attributes, static_cast<size_t>(stack_kb) << 10) != 0) {
    fail(2, "no such size of a stack");
  }
  const auto run = [](void* data) -> void* {
    (*static_cast<const std::function<void()>*>(data))();
    return nullptr;
  };
  pthread_t thread;
  if (pthread_create(&thread, &attributes, run, const_cast<std::function<void()>*>(&forks)) != 0) {
    fail(1, "pthread_create");
  }
  pthread_join(thread, nullptr);
}

// Sets another number of threads before each fork, and computes in the parent after it.
void fork_in_turns(const Blas& blas, const std::vector<std::pair<int, Job>>& turns, int forks) {
  for (size_t i = 0; i < static_cast<size_t>(forks); ++i) {
    const auto& [threads, job] = turns[i % turns.size()];
    blas.set_threads(threads);
    fork_many(job, 1, 0);
    for (const Check& check : job.checks) {
      if (!check.holds()) fail(1, "inexact in the parent after a fork");
    }
  }
}

// Each generation computes, then forks the next. With `beside` it also computes while the next
// generation computes.
void nest(const Job& job, int depth, bool beside) {
  for (const Check& check : job.checks) {
    if (!check.holds()) fail(1, "inexact in a generation");
  }
  if (write(STDOUT_FILENO, ".", 1) != 1) _exit(1);
  if (depth == 0) return;
  const pid_t child = fork();
  if (child < 0) fail(1, "fork");
  if (child == 0) {
    nest(job, depth - 1, beside);
    _exit(0);
  }
  for (const Check& check : job.checks) {
    if (beside && !check.holds()) fail(1, "inexact beside the next generation");
  }
  if (!answered_well(child)) fail(1, "a generation failed");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  const std::string op = arguments.text("op", "gemm");
  if (op == "none") return 0;  // what a child runs that execs
  const std::string binding = arguments.text("binding", "now");
  Blas blas(arguments.text("blas", ""), arguments.text("prefix", ""), arguments.text("suffix", ""),
            (binding == "now" ? RTLD_NOW : RTLD_LAZY) | (binding == "deep" ? RTLD_DEEPBIND : 0) |
                RTLD_LOCAL);
  const int threads = arguments.number("threads", 2);
  blas.set_threads(threads);
  const Integer n = arguments.number("n", 200);
  const int flight = arguments.number("flight", 0);
  const int flight_pause_us = arguments.number("flight-pause-us", 0);
  const char* most = getenv("FORKSAFE_TEST_MOST_FORKS");
  const int forks =
      std::min(arguments.number("forks", 100), most != nullptr ? atoi(most) : INT_MAX);
  const int pause_us = arguments.number("pause-us", 0);
  const std::string from = arguments.text("from", "main");
  // The children use this BLAS, and with --also copies of it at other paths.
  Job job = {{},
             arguments.text("child", "compute"),
             arguments.number("child-threads-at-end", 0),
             arguments.text("errno", "kept") == "kept"};
  // Computes what a BLAS must return with that number of threads.
  const auto check_of = [&](const Blas& copy, int threads_in_check) {
    Check check = {Operation(copy, op, n), {}, {}};
    if (arguments.text("or-one-thread", "no") == "yes") {
      copy.set_threads(1);
      check.one_thread_reference = check.operation.result();
    }
    copy.set_threads(threads_in_check);
    check.reference = check.operation.result();
    copy.set_threads(threads);
    return check;
  };
  const int child_threads = arguments.number("child-threads", threads);
  job.checks.push_back(check_of(blas, child_threads));
  std::istringstream others(arguments.text("also", ""));
  for (std::string path; std::getline(others, path, ':');) {
    const Blas copy(path, arguments.text("prefix", ""), arguments.text("suffix", ""),
                    RTLD_NOW | RTLD_LOCAL);
    copy.set_threads(threads);
    job.checks.push_back(check_of(copy, child_threads));
  }
  std::vector<std::pair<int, Job>> turns;
  std::istringstream numbers(arguments.text("threads-in-turn", ""));
  for (std::string number; std::getline(numbers, number, ',');) {
    turns.emplace_back(std::stoi(number), job);
    turns.back().second.checks = {check_of(blas, turns.back().first)};
  }
  Check in_parent = {Operation(blas, arguments.text("flight-op", op),
                               arguments.number("flight-n", static_cast<int>(n))),
                     {},
                     {}};
  in_parent.reference = in_parent.operation.result();
  // If results differed without a fork, the test would prove nothing.
  if (!in_parent.holds()) fail(2, "results do not repeat");
  if (arguments.text("close", "no") == "yes") blas.close();
  if (job.child == "look" && resident_buffers_kb() == 0) fail(2, "the parent has no buffers");

  std::atomic<bool> stop{false};
  std::atomic<int> started{0};
  std::vector<std::thread> in_flight;
  for (int i = 0; i < flight; ++i) {
    in_flight.emplace_back([&] {
      ++started;
      while (!stop.load()) {
        if (!in_parent.holds()) fail(1, "inexact in the parent");
        if (flight_pause_us != 0) usleep(static_cast<useconds_t>(flight_pause_us));
      }
    });
  }
  while (started.load() < flight) std::this_thread::yield();
  usleep(20000);
  limits::set_late();

  if (const int depth = arguments.number("nest", 0)) {
    nest(job, depth, arguments.text("beside", "no") == "yes");
  } else if (!turns.empty()) {
    fork_in_turns(blas, turns, forks);
    blas.set_threads(threads);
  } else if (from == "main") {
    fork_many(job, forks, pause_us);
  } else if (from == "thread") {
    fork_in_thread(arguments.number("stack-kb", 0), [&] { fork_many(job, forks, pause_us); });
  } else if (from == "both") {
    std::thread other([&] { fork_many(job, forks / 2, pause_us); });
    fork_many(job, forks - forks / 2, pause_us);
    other.join();
  } else {
    fail(2, "no such place to fork from: " + from);
  }

  const int threads_after = arguments.number("threads-after", 0);
  if (threads_after != 0 && count_threads() != threads_after) {
    fail(1, "the parent has " + std::to_string(count_threads()) + " threads");
  }

  stop.store(true);
  for (std::thread& t : in_flight) t.join();
  if (arguments.text("close", "no") == "no" && !in_parent.holds()) {
    fail(1, "inexact in the parent at the end");
  }
  return 0;
}

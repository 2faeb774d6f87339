// SPDX-License-Identifier: Apache-2.0
// What the programs of this folder share: bounds in time and in forks, and plain ways to check.
//
// A program here has no BLAS and no OpenMP. It prints the same with and without the library, and
// exits with 0 only when everything was right, with 77 where it can't be run. Its numbers of forks
// are for a quick run; `--times=N` multiplies them, and the bound in time with them.
//
// Nothing here may change what the library could get wrong: no thread, no signal handler, no lock.
#pragma once

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace harm {

constexpr int kSkipped = 77;

inline int times = 1;
inline const char* mode = "";  ///< the first argument that is no option
inline const char* more = "";  ///< the second one

/// Prints a whole line with one write(), so it works in handlers, in children and on small stacks.
__attribute__((format(printf, 1, 2))) inline void say(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  const size_t used =
      size < static_cast<int>(sizeof line) - 1 ? static_cast<size_t>(size) : sizeof line - 2;
  line[used] = '\n';
  if (write(STDOUT_FILENO, line, used + 1) < 0) _exit(4);
}

[[noreturn]] inline void fail(const char* what) {
  say("WRONG: %s", what);
  _exit(1);
}

inline void expect(bool right, const char* what) {
  if (!right) fail(what);
}

[[noreturn]] inline void skip(const char* reason) {
  say("skipped: %s", reason);
  _exit(kSkipped);
}

/// Has the kernel kill this process after that many seconds. Children don't inherit the timer.
/// Makes the system calls itself, because timer_create of glibc before 2.34 allocates, which is not
/// allowed in signal handlers and after clone.
inline void watch(int seconds) {
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  int timer = 0;
  expect(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
  itimerspec when = {};
  when.it_value.tv_sec = seconds;
  expect(syscall(SYS_timer_settime, timer, 0, &when, nullptr) == 0, "timer_settime");
}

/// How many forks all processes of the program may still make.
inline std::atomic<long>* forks_left = nullptr;

/// To be called first. `forks` is a bound, far above the number of forks in a quick run.
inline void begin(int argc, char** argv, int seconds, long forks) {
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--times=", 8) == 0) {
      times = atoi(argv[i] + 8);
    } else if (*mode == '\0') {
      mode = argv[i];
    } else {
      more = argv[i];
    }
  }
  expect(times >= 1, "--times=N: N is at least 1");
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  expect(page != MAP_FAILED, "mmap");
  forks_left = new (page) std::atomic<long>(forks * times);
  // A child that spins for ever ends too.
  const rlimit processor_time = {static_cast<rlim_t>(2 * seconds * times),
                                 static_cast<rlim_t>(2 * seconds * times)};
  setrlimit(RLIMIT_CPU, &processor_time);
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  watch(seconds * times);
}

inline bool mode_is(const char* name) { return strcmp(mode, name) == 0; }

/// Ends the process if the program has forked far more often than it should.
inline void spend_fork() {
  if (forks_left->fetch_sub(1) <= 0) fail("more forks than the program makes");
}

inline pid_t bounded_fork() {
  spend_fork();
  return fork();
}

inline int reap(pid_t child) {
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(child, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  expect(child > 0, "fork failed");
  expect(reaped == child, "waitpid found no child");
  return status;
}

inline void reap_well(pid_t child) {
  const int status = reap(child);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) fail("a child hung");
  if (WIFSIGNALED(status)) fail("a child crashed");
  if (WEXITSTATUS(status) != 0) _exit(1);  // the child has printed the reason
}

/// A child that ends at once.
inline void fork_once() {
  const pid_t child = bounded_fork();
  if (child == 0) _exit(0);
  reap_well(child);
}

/// A child that forks again: `generations` processes in all.
inline void fork_chain(int generations) {
  const pid_t child = bounded_fork();
  if (child == 0) {
    watch(30);
    if (generations > 1) fork_chain(generations - 1);
    _exit(0);
  }
  reap_well(child);
}

/// Like fork_chain(2), but it prints nothing and has no time limit. So it works before constructors
/// have run, and on small stacks. Returns false if a process did not end well.
inline bool fork_twice(pid_t (*make)()) {
  const pid_t child = make();
  if (child == 0) {
    const pid_t grandchild = make();
    if (grandchild == 0) _exit(0);
    int status = -1;
    waitpid(grandchild, &status, 0);
    _exit(status == 0 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

inline double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline void pause_us(long microseconds) {
  timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

inline void on_signal(int number, void (*handler)(int), int flags = SA_RESTART) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  expect(sigaction(number, &action, nullptr) == 0, "sigaction");
}

inline pthread_t start_thread(void* (*body)(void*), void* argument = nullptr) {
  pthread_t thread;
  expect(pthread_create(&thread, nullptr, body, argument) == 0, "pthread_create");
  return thread;
}

inline bool glibc_at_least(int minor) {
  int major_here = 0;
  int minor_here = 0;
  sscanf(gnu_get_libc_version(), "%d.%d", &major_here, &minor_here);
  return major_here > 2 || minor_here >= minor;
}

/// Before glibc 2.36 fork() holds a lock while fork handlers run. There, a handler that waits for
/// another thread may hang without the library too (glibc's bugs 24595 and 27054).
inline void need_handlers_without_lock() {
  if (!glibc_at_least(36)) skip("glibc before 2.36 holds a lock while fork handlers run");
}

/// A library beside the program (see plugin.cpp).
inline void* load(const char* name) {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path - 64);
  expect(size > 0, "readlink /proc/self/exe");
  path[size] = '\0';
  char* file = strrchr(path, '/') + 1;
  snprintf(file, 64, "lib%s.so", name);
  void* handle = dlopen(path, RTLD_NOW);
  if (handle == nullptr) fail(dlerror());
  return handle;
}

/// Loads GNU OpenMP, but the program does not use it. The library then looks at the loaded objects.
inline void load_gnu_openmp() {
  if (dlopen("libgomp.so.1", RTLD_NOW) == nullptr) skip("no libgomp.so.1");
}

}  // namespace harm

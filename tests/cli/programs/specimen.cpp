// SPDX-License-Identifier: Apache-2.0
// specimen LIBRARY PREFIX SUFFIX SITUATION [ARGUMENT...]: a process for the command to look at.
//
// It loads a BLAS by its path ("" for none), enters the situation and prints "ready PID" on
// standard output. PID is the process to look at: a child or the process itself. Then it stays in
// the situation until it is killed. The table of situations is in main().
//
// bare_fork() is clone without libc's fork handlers, at a chosen moment. So a child gets stuck at a
// known place each time.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../../programs/matrix.h"
#include "stay.h"

// ---- pthread_mutex_lock and pthread_create, in front of the C library's

namespace {

using Lock = int (*)(pthread_mutex_t*);
Lock real_lock;
thread_local bool keep_next_lock = false;  // this thread takes one more lock, and keeps it
std::atomic<bool> lock_is_held{false};

using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
Create real_create;
pthread_spinlock_t held_lock;
bool threads_get_nowhere = false;  // new threads run, but stay within the C library
int threads_left = -1;             // how many more threads can be made; -1: any number

}  // namespace

// Optimized, so that it jumps to the C library's function: it leaves no frame on the stack.
extern "C" __attribute__((optimize("O2"))) int pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (real_lock == nullptr) {
    real_lock = reinterpret_cast<Lock>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  }
  if (keep_next_lock) {
    real_lock(mutex);
    lock_is_held = true;
    stay();
  }
  return real_lock(mutex);
}

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
  if (real_create == nullptr) {
    real_create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  }
  if (threads_left == 0) return EAGAIN;
  if (threads_left > 0) --threads_left;
  if (threads_get_nowhere) {
    start = reinterpret_cast<void* (*)(void*)>(reinterpret_cast<void*>(pthread_spin_lock));
    argument = const_cast<int*>(&held_lock);
  }
  return real_create(thread, attributes, start, argument);
}

namespace {

[[noreturn]] void fail(const std::string& message) {
  fprintf(stderr, "specimen: %s\n", message.c_str());
  _exit(2);
}

void say(const std::string& line) {
  if (write(STDOUT_FILENO, (line + "\n").data(), line.size() + 1) < 0) _exit(2);
}

[[noreturn]] void stay_beside(pid_t child) {
  say("ready " + std::to_string(child));
  int status = 0;
  waitpid(child, &status, 0);
  say("the child ended with " + std::to_string(status));
  _exit(3);
}

[[noreturn]] void stay_as_i_am() {
  say("ready " + std::to_string(getpid()));
  stay();
}

pid_t bare_fork() { return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

// ---- what is loaded

void* library;
std::string prefix;
std::string suffix;
std::vector<std::string> arguments;

template <typename Function>
Function named(const std::string& name) {
  void* found = dlsym(library, name.c_str());
  if (found == nullptr) fail("no " + name);
  return reinterpret_cast<Function>(found);
}

using Integer = int64_t;  // also right for a 32-bit interface on little-endian machines
void multiply_into(Matrix* out, Integer n, const Matrix& a) {
  using Gemm = void (*)(const char*, const char*, const Integer*, const Integer*, const Integer*,
                        const double*, const double*, const Integer*, const double*, const Integer*,
                        const double*, double*, const Integer*, size_t, size_t);
  static const Gemm gemm = named<Gemm>(prefix + "dgemm_" + suffix);
  const double one = 1;
  const double zero = 0;
  gemm("N", "N", &n, &n, &n, &one, a.data(), &n, a.data(), &n, &zero, out->data(), &n, 1, 1);
}

// Repeated calls are inside the BLAS nearly all of the time.
void multiply(Integer n) {
  static Matrix a;
  static Matrix out;
  if (a.size() != static_cast<size_t>(n * n)) {
    a = random_numbers(static_cast<size_t>(n * n));
    out.resize(a.size());
  }
  multiply_into(&out, n, a);
}

void product_with_vector(Integer n, const Matrix& a) {
  using Gemv = void (*)(const char*, const Integer*, const Integer*, const double*, const double*,
                        const Integer*, const double*, const Integer*, const double*, double*,
                        const Integer*, size_t);
  static const Gemv gemv = named<Gemv>(prefix + "dgemv_" + suffix);
  const double one = 1;
  const double zero = 0;
  const Integer step = 1;
  Matrix out(static_cast<size_t>(n));
  gemv("N", &n, &n, &one, a.data(), &n, a.data(), &step, &zero, out.data(), &step, 1);
}

void set_threads(int threads) {
  named<void (*)(int)>(prefix + "openblas_set_num_threads" + suffix)(threads);
  // An OpenMP build may use the number of its runtime instead.
  using Set = void (*)(int);
  if (const auto set = reinterpret_cast<Set>(dlsym(library, "omp_set_num_threads"))) set(threads);
}

int argument(size_t index, int fallback) {
  return index < arguments.size() ? atoi(arguments[index].c_str()) : fallback;
}

template <typename Work>
[[noreturn]] void for_ever(Work work) {
  for (;;) work();
}

// Makes a child that does `work`, while the parent waits.
template <typename MakeChild, typename Work>
[[noreturn]] void with_child(MakeChild make_child, Work work) {
  const pid_t child = make_child();
  if (child < 0) fail("no child");
  if (child == 0) {
    work();
    stay();
  }
  stay_beside(child);
}

// When this returns, another thread does `work` again and again, forever.
void put_in_flight(const std::function<void()>& work) {
  static std::atomic<int> rounds;
  rounds = 0;
  std::thread([work] {
    for (;;) {
      work();
      ++rounds;
    }
  }).detach();
  while (rounds < 2) usleep(1000);
  usleep(20000);
}

// ---- the situations

// idle [N]: sleeps after a call with N threads, so that there is a pool.
void prepare_idle() {
  if (argument(0, 0) != 0) set_threads(argument(0, 0));
  if (library != nullptr) multiply(300);
}

void idle() {
  prepare_idle();
  stay_as_i_am();
}

// once [N]: the same, but ends.
void once() {
  prepare_idle();
  say("once");
}

// workers: a child that computes, made while the pool is idle.
void workers() {
  multiply(400);
  usleep(100000);
  with_child(bare_fork, [] { multiply(400); });
}

// in-flight N [THREADS]: another thread computes a large product at the fork.
void put_product_in_flight() {
  if (argument(1, 0) != 0) set_threads(argument(1, 0));
  multiply(400);
  const Integer n = argument(0, 2500);
  static const Matrix a = random_numbers(static_cast<size_t>(n * n));
  static Matrix out(a.size());
  put_in_flight([n] { multiply_into(&out, n, a); });
}

void in_flight() {
  put_product_in_flight();
  with_child(bare_fork, [] { multiply(400); });
}

// fork-in-flight N [THREADS]: the same with fork handlers, for a child under forksafe.
void fork_in_flight() {
  put_product_in_flight();
  with_child(fork, [] { multiply(400); });
}

// exit-in-child: the child of a fork without handlers exits, and joins workers that it does not
// have.
void exit_in_child() {
  multiply(400);
  const pid_t child = bare_fork();
  if (child == 0) exit(0);
  stay_beside(child);
}

// exit-in-flight: exits while another thread is inside its last product.
void exit_in_flight() {
  static std::atomic<bool> ends{false};
  const Integer n = 1500;
  // Not static: the exit would destroy them.
  const auto* const a = new Matrix(random_numbers(static_cast<size_t>(n * n)));
  auto* const out = new Matrix(a->size());
  put_in_flight([=] {
    if (ends) stay();
    multiply_into(out, n, *a);
  });
  say("ready " + std::to_string(getpid()));
  ends = true;
  exit(0);
}

// queue: the worker computes a product, and a thread waits for it with the lock of the queue.
void queue() {
  const Integer n = 2500;
  static const Matrix a = random_numbers(static_cast<size_t>(n * n));
  static Matrix out(a.size());
  put_in_flight([] { multiply_into(&out, n, a); });
  std::thread([] { for_ever([] { product_with_vector(n, a); }); }).detach();
  usleep(100000);
  with_child(bare_fork, [] { product_with_vector(n, a); });
}

// locked [N]: another thread keeps the first lock that a call takes. That is its second call: in
// the first call of a thread, BLIS 1.0 and later take a lock of that thread first (bli_init.c,
// ind_l_state).
void locked() {
  const int n = argument(0, 200);
  multiply(n);
  std::thread([n] {
    const Matrix a = random_numbers(static_cast<size_t>(n) * static_cast<size_t>(n));
    Matrix out(a.size());
    multiply_into(&out, n, a);
    keep_next_lock = true;
    multiply_into(&out, n, a);
    fail("the call took no lock");
  }).detach();
  while (!lock_is_held) usleep(1000);
  with_child(bare_fork, [n] { multiply(n); });
}

// OpenBLAS raises SIGINT if it can't make a thread. Python has a handler for it, too.
void handle_interrupt() {
  signal(SIGINT, [](int) {});
}

// refused THREADS M: a child that can make M threads and no more.
void refused() {
  set_threads(argument(0, 2));
  multiply(400);
  const int threads = argument(1, 0);
  with_child(fork, [threads] {
    handle_interrupt();
    threads_left = threads;
    multiply(400);
  });
}

// refused-here THREADS M: the same without a fork.
void refused_here() {
  handle_interrupt();
  threads_left = argument(1, 0);
  set_threads(argument(0, 2));
  say("ready " + std::to_string(getpid()));
  multiply(400);
  stay();
}

// limited [GROUP]: a child that has reached its limit of threads. That is RLIMIT_NPROC, which does
// not apply to root, or the limit of a control group, whose folder is given.
void limited() {
  multiply(400);
  with_child(fork, [] {
    handle_interrupt();
    if (!arguments.empty()) {
      std::ofstream(arguments[0] + "/cgroup.procs") << getpid() << std::flush;
    } else {
      const rlimit one = {1, 1};
      if (setrlimit(RLIMIT_NPROC, &one) != 0) fail("setrlimit");
      if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) fail("setuid");
    }
    multiply(400);
  });
}

// region [VALUE]: LIBRARY is an OpenMP runtime. The child starts a region for two threads. Before,
// the program sets KMP_INIT_AT_FORK to VALUE unless it is set, as scikit-learn does. If VALUE
// begins with
// "!", the program sets it in any case.
void region() {
  using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
  if (!arguments.empty()) {
    const bool replace = arguments[0][0] == '!';
    setenv("KMP_INIT_AT_FORK", arguments[0].c_str() + replace, replace);
  }
  const auto parallel = named<Parallel>("GOMP_parallel");
  const auto nothing = [](void*) {};
  parallel(nothing, nullptr, 2, 0);
  with_child(fork, [=] { parallel(nothing, nullptr, 2, 0); });
}

// ---- not stuck

// products N: this process computes products forever.
void products() {
  multiply(argument(0, 2500));
  say("ready " + std::to_string(getpid()));
  for_ever([] { multiply(argument(0, 2500)); });
}

// child-products N: a child computes products forever.
void child_products() {
  multiply(argument(0, 2500));
  with_child(fork, [] { for_ever([] { multiply(argument(0, 2500)); }); });
}

// unstarted N: a child computes, and its new threads look as if they had not run yet.
void unstarted() {
  const int n = argument(0, 110);
  multiply(n);
  pthread_spin_init(&held_lock, PTHREAD_PROCESS_PRIVATE);
  pthread_spin_lock(&held_lock);
  with_child(fork, [n] {
    threads_get_nowhere = true;
    multiply(n);
  });
}

// Sends SIGUSR1 to all threads but the main one, and returns their number.
int signal_other_threads() {
  int count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const pid_t tid = std::stoi(task.path().filename());
    if (tid == getpid()) continue;
    ++count;
    syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
  }
  return count;
}

// Each other thread waits in vfork() for a child that stays. The kernel stops no thread in vfork()
// for a tracer.
void keep_other_threads_in_vfork() {
  static std::atomic<int> waiting{0};
  struct sigaction action = {};
  action.sa_handler = [](int) {
    ++waiting;
    stay_in_vfork();
  };
  sigaction(SIGUSR1, &action, nullptr);
  const int others = signal_other_threads();
  while (waiting != others) usleep(1000);
}

// unread: the workers can't be stopped, while the main thread computes.
void unread() {
  multiply(400);
  keep_other_threads_in_vfork();
  say("ready " + std::to_string(getpid()));
  multiply(400);
}

// fork-loop N: forks, computes a product in both processes, and again.
void fork_loop() {
  const int n = argument(0, 300);
  multiply(n);
  say("ready " + std::to_string(getpid()));
  for_ever([n] {
    const pid_t child = fork();
    if (child == 0) {
      multiply(n);
      _exit(0);
    }
    multiply(n);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) fail("a child failed");
  });
}

// counted: computes, compares, and counts SIGUSR1 and SIGRTMIN until SIGTERM. Then it prints the
// counts. Signals from SIGRTMIN on are queued, so each one arrives.
void counted() {
  static std::atomic<long> signals{0};
  static std::atomic<long> queued{0};
  static std::atomic<bool> stop{false};
  struct sigaction action = {};
  action.sa_handler = [](int) { ++signals; };
  sigaction(SIGUSR1, &action, nullptr);
  action.sa_handler = [](int) { ++queued; };
  sigaction(SIGRTMIN, &action, nullptr);
  action.sa_handler = [](int) { stop = true; };
  sigaction(SIGTERM, &action, nullptr);
  const Matrix a = random_numbers(400 * 400);
  Matrix expected(a.size());
  Matrix out(a.size());
  multiply_into(&expected, 400, a);
  say("ready " + std::to_string(getpid()));
  while (!stop) {
    multiply_into(&out, 400, a);
    if (out != expected) fail("inexact");
  }
  say("exact, SIGUSR1 " + std::to_string(signals) + ", SIGRTMIN " + std::to_string(queued));
  _exit(0);
}

// fork-beside: the main thread forks beside a working thread, and checks that this one continues.
void fork_beside() {
  static std::atomic<long> rounds{0};
  std::thread([] {
    for_ever([] {
      ++rounds;
      usleep(1000);
    });
  }).detach();
  while (rounds == 0) usleep(1000);
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  const long by_then = rounds;
  while (rounds < by_then + 100) usleep(1000);
  say("the thread went on");
}

// threads-end N: ends while N threads sleep.
void threads_end() {
  for (int i = 0; i < argument(0, 16); ++i) std::thread([] { stay(); }).detach();
  _exit(0);
}

// deep N: N generations below this process, each of which has one child.
void deep() {
  const pid_t first = getpid();
  for (int i = 0; i < argument(0, 1); ++i) {
    if (fork() != 0) stay();
  }
  say("ready " + std::to_string(first));
  stay();
}

// thread-execs: a thread that is not the main thread executes sleep(1).
void thread_execs() {
  std::thread([] {
    execlp("sleep", "sleep", "0.1", nullptr);
    fail("no sleep");
  }).detach();
  stay();
}

// execs-on-signal: executes sleep(1) when SIGUSR1 comes. Prints the id of another thread.
void execs_on_signal() {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &one, nullptr);
  std::thread([] {
    say("ready " + std::to_string(syscall(SYS_gettid)));
    stay();
  }).detach();
  int signal = 0;
  sigwait(&one, &signal);
  execlp("sleep", "sleep", "60", nullptr);
  fail("no sleep");
}

// ---- what can't be looked at

void zombie() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t how;
  waitid(P_PID, static_cast<id_t>(child), &how, WEXITED | WNOWAIT);
  say("ready " + std::to_string(child));
  stay();
}

// main-ended: the main thread has ended, another one goes on.
void main_ended() {
  std::thread([] {
    usleep(100 * 1000);
    say("ready " + std::to_string(getpid()));
    stay();
  }).detach();
  pthread_exit(nullptr);
}

// changed-word: two threads wait on futexes, of which a third one has changed the main thread's
// word.
void changed_word() {
  static uint32_t words[2] = {1, 1};
  const auto wait = [](uint32_t* word) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 1, nullptr, nullptr, 0);
  };
  std::thread([wait] { wait(&words[1]); }).detach();
  std::thread([] {
    usleep(100000);  // by then the others wait
    __atomic_store_n(&words[0], 2, __ATOMIC_SEQ_CST);
    stay_as_i_am();
  }).detach();
  wait(&words[0]);
  stay();
}

// slow-vfork: ends after 1.7 s. For all that time the main thread is in vfork, where it can't be
// stopped. For 1.5 s another thread waits on a futex.
void slow_vfork() {
  static uint32_t word = 1;
  std::thread([] {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, nullptr, nullptr, 0);
    stay();
  }).detach();
  if (vfork() == 0) {
    usleep(1500 * 1000);
    __atomic_store_n(&word, 0, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    usleep(200 * 1000);
    _exit(0);
  }
  say("done");
}

// The functions of libcrew.
template <typename Function>
Function* crew(const char* name) {
  auto* const function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) fail(name);
  return function;
}

void make_crew() {
  crew<void(int)>("crew_start")(2);
  crew<void(int, useconds_t)>("crew_work")(2, 1000);
}

// crew-late: libcrew's workers stay within the C library for 0.1 s, as if they had not run yet.
void late_crew() {
  pthread_spin_init(&held_lock, PTHREAD_PROCESS_PRIVATE);
  pthread_spin_lock(&held_lock);
  threads_get_nowhere = true;
  signal(SIGUSR1, crew<void(int)>("crew_stay"));
  crew<void(int)>("crew_start")(2);
  say("ready " + std::to_string(getpid()));
  usleep(100 * 1000);
  signal_other_threads();
  stay();
}

// crew-unread: libcrew's workers can't be stopped.
void unread_crew() {
  make_crew();
  keep_other_threads_in_vfork();
  say("ready " + std::to_string(getpid()));
  stay();
}

// crew: a child waits for libcrew's workers.
void lost_crew() {
  make_crew();
  with_child(fork, [] { crew<void(int, useconds_t)>("crew_work")(2, 1000); });
}

// crew-timed: the same, with a timeout, again and again.
void lost_timed_crew() {
  make_crew();
  with_child(fork, [] {
    crew<void()>("crew_forget")();
    crew<void(int, useconds_t)>("crew_work_and_look")(2, 1000);
  });
}

// crew-forks: forks three times beside libcrew's workers; the children fork, too.
void crew_forks() {
  make_crew();
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      const pid_t grandchild = fork();
      if (grandchild == 0) _exit(0);
      waitpid(grandchild, nullptr, 0);
      _exit(0);
    }
    waitpid(child, nullptr, 0);
  }
  say("forked");
}

// crew-beside: as crew, beside a thread that the child has made, and which only sleeps.
void lost_crew_beside() {
  make_crew();
  with_child(fork, [] {
    std::thread(stay).detach();
    crew<void(int, useconds_t)>("crew_work")(2, 1000);
  });
}

// A child has started workers of its own, and waits for one that takes long.
void wait_for_own_crew(const char* work) {
  make_crew();
  const pid_t child = fork();
  if (child != 0) {
    waitpid(child, nullptr, 0);
    _exit(3);
  }
  crew<void()>("crew_forget")();
  crew<void(int)>("crew_start")(2);
  say("ready " + std::to_string(getpid()));
  crew<void(int, useconds_t)>(work)(1, 100 * 1000 * 1000);
}

// crew-of-its-own and crew-timed-of-its-own: so, without a timeout and with one.
void own_crew() { wait_for_own_crew("crew_work"); }
void own_timed_crew() { wait_for_own_crew("crew_work_and_look"); }

// crew-handler BY_JUMP: a child hangs in a fork handler of libcrew.
void crew_handler() {
  std::atomic<bool> locked{false};
  std::thread([&] {
    crew<void(bool)>("crew_lock_handler")(argument(0, 0) != 0);
    locked = true;
    stay();
  }).detach();
  while (!locked) usleep(1000);
  // The child does not come out of fork(), so its id is read from /proc.
  std::thread([] {
    const std::string file = "/proc/self/task/" + std::to_string(getpid()) + "/children";
    pid_t child = 0;
    while (child == 0) {
      std::ifstream(file) >> child;
      usleep(1000);
    }
    say("ready " + std::to_string(child));
  }).detach();
  const pid_t child = fork();
  if (child == 0) stay();
  stay_beside(child);
}

// crew-before-fork SLEEPS: this process hangs in fork(), in a handler of libcrew. The holder of its
// lock waits for ever, or sleeps.
void crew_before_fork() {
  static sem_t never;
  sem_init(&never, 0, 0);
  std::atomic<bool> locked{false};
  std::thread([&] {
    crew<void()>("crew_lock_before_fork")();
    locked = true;
    if (argument(0, 0) == 0) crew<void(sem_t*)>("crew_wait")(&never);
    stay();
  }).detach();
  while (!locked) usleep(1000);
  say("ready " + std::to_string(getpid()));
  fork();
  fail("it came out of fork()");
}

// ---- children that are not stuck. Their parent has threads that they lack.

// child-works: computes in one thread.
void child_works() {
  make_crew();
  with_child(fork, [] {
    volatile double sum = 0;
    for_ever([&] { sum = sum + 1; });
  });
}

// crew-beside-vfork: a child waits, and of its parent's threads beside the crew one can't be
// stopped.
void crew_beside_vfork() {
  make_crew();
  put_thread_in_vfork();
  with_child(fork, [] {});
}

// child-reads: waits for a pipe.
void child_reads() {
  make_crew();
  with_child(fork, [] {
    int ends[2];
    char byte;
    if (pipe(ends) != 0 || read(ends[0], &byte, 1) != 1) fail("pipe");
  });
}

// child-locks SLEEPS: waits for a lock that another thread of the child holds, which computes or
// sleeps.
void child_locks() {
  make_crew();
  with_child(fork, [] {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static std::atomic<bool> locked{false};
    std::thread([] {
      pthread_mutex_lock(&mutex);
      locked = true;
      for_ever([] {
        if (argument(0, 0) != 0) usleep(100 * 1000 * 1000);
      });
    }).detach();
    while (!locked) usleep(1000);
    pthread_mutex_lock(&mutex);
  });
}

// signalled N: a child with N threads of libcrew waits in it for its handler of SIGTERM.
void signalled() {
  static sem_t semaphore;
  sem_init(&semaphore, 0, 0);
  make_crew();
  with_child(fork, [] {
    struct sigaction action = {};
    action.sa_handler = [](int) { sem_post(&semaphore); };
    sigaction(SIGTERM, &action, nullptr);
    crew<void(int)>("crew_start")(argument(0, 1));
    crew<void(sem_t*)>("crew_wait")(&semaphore);
  });
}

// long-arguments: the kernel takes a mapping of 32 MiB without a word for the arguments.
void long_arguments() {
#ifdef PR_SET_MM_MAP
  constexpr size_t kSize = size_t{32} << 20;
  void* mapping = mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  // proc(5): the first field after the name is the third one.
  std::istringstream rest(stat.substr(stat.rfind(')') + 1));
  std::vector<std::string> words = {"", "", ""};
  for (std::string word; rest >> word;) words.push_back(word);
  const auto field = [&](size_t i) { return std::stoull(words.at(i)); };
  prctl_mm_map map = {};
  map.start_code = field(26);
  map.end_code = field(27);
  map.start_stack = field(28);
  map.start_data = field(45);
  map.end_data = field(46);
  map.start_brk = field(47);
  map.brk = reinterpret_cast<uintptr_t>(sbrk(0));
  map.arg_start = reinterpret_cast<uintptr_t>(mapping);
  map.arg_end = map.arg_start + kSize;
  map.env_start = field(50);
  map.env_end = field(51);
  map.exe_fd = ~0U;
  if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0) say("refused");
#else
  say("refused");
#endif
  stay_as_i_am();
}

// named: the name of its thread would colour a terminal.
void named_thread() {
  prctl(PR_SET_NAME, "\x1b[31mred\xc2\x9b");
  stay_as_i_am();
}

// with-thread: prints the id of a thread that is not the main thread.
void with_thread() {
  std::thread([] {
    say("ready " + std::to_string(syscall(SYS_gettid)));
    stay();
  }).join();
}

// not-dumpable: a process that others of its user may not look at.
void not_dumpable() {
  prctl(PR_SET_DUMPABLE, 0);
  stay_as_i_am();
}

// traced: a child that this process traces.
void traced() {
  const pid_t child = fork();
  if (child == 0) stay();
  if (ptrace(PTRACE_SEIZE, child, nullptr, nullptr) != 0) fail("PTRACE_SEIZE");
  say("ready " + std::to_string(child));
  stay();
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)()> situations = {
      {"idle", idle},
      {"changed-word", changed_word},
      {"once", once},
      {"fork-in-flight", fork_in_flight},
      {"workers", workers},
      {"in-flight", in_flight},
      {"exit-in-child", exit_in_child},
      {"exit-in-flight", exit_in_flight},
      {"queue", queue},
      {"locked", locked},
      {"refused", refused},
      {"refused-here", refused_here},
      {"limited", limited},
      {"region", region},
      {"products", products},
      {"child-products", child_products},
      {"unread", unread},
      {"unstarted", unstarted},
      {"fork-loop", fork_loop},
      {"counted", counted},
      {"fork-beside", fork_beside},
      {"threads-end", threads_end},
      {"thread-execs", thread_execs},
      {"execs-on-signal", execs_on_signal},
      {"slow-vfork", slow_vfork},
      {"zombie", zombie},
      {"main-ended", main_ended},
      {"with-thread", with_thread},
      {"crew", lost_crew},
      {"crew-timed", lost_timed_crew},
      {"crew-timed-of-its-own", own_timed_crew},
      {"crew-forks", crew_forks},
      {"crew-beside", lost_crew_beside},
      {"crew-late", late_crew},
      {"crew-unread", unread_crew},
      {"crew-of-its-own", own_crew},
      {"crew-handler", crew_handler},
      {"crew-before-fork", crew_before_fork},
      {"child-works", child_works},
      {"crew-beside-vfork", crew_beside_vfork},
      {"child-reads", child_reads},
      {"child-locks", child_locks},
      {"signalled", signalled},
      {"traced", traced},
      {"not-dumpable", not_dumpable},
      {"deep", deep},
      {"long-arguments", long_arguments},
      {"named", named_thread},
  };
  const auto found = argc > 4 ? situations.find(argv[4]) : situations.end();
  if (found == situations.end()) fail("usage: specimen LIBRARY PREFIX SUFFIX SITUATION");
  prefix = argv[2];
  suffix = argv[3];
  arguments.assign(argv + 5, argv + argc);
  if (*argv[1] != '\0') {
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail(dlerror());
  }
  found->second();
  return 0;
}

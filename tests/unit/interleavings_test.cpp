// SPDX-License-Identifier: Apache-2.0
// Checks the order of locks and waits around a fork (docs/locks.md). The library's own steps run in
// every order with few preemptions, and in random orders.
//
// The test runs the library's own code for before_fork, the head, after_fork, the gates, the locks,
// the doors, and the steps of OpenBLAS's two builds. It has models of the kernel's fork, which
// copies memory in several steps, of glibc's lock of malloc, of other libraries' handlers, of
// signals, and of BLAS calls.
//
// It checks in each execution:
// - No deadlock. Time moves only when nobody can run, and a scenario says how much may be lost.
// - A child that has a call half done in its memory knows that it is torn.
// - A child resets the gates and locks: it computes and forks at once, and waits for nobody.
// - At the end the gates are open and empty, and both leases are free.
//
// FORKSAFE_MODEL_SECONDS=N explores random executions of each scenario for N seconds,
// FORKSAFE_MODEL_SEED=N starts at that seed, and FORKSAFE_MODEL_VERBOSE=1 tells how many there
// were. An execution that fails is run again, with a line for each change of the running thread.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <set>

#include "runtimes/openblas/openmp.h"
#include "runtimes/openblas/threads.h"
#include "scheduler.h"

// Its steps are in an unnamed namespace.
#include "fork_handlers.cpp"

namespace {

using forksafe::fork_page;
using forksafe::model_thread_state;
using forksafe::Module;
using forksafe::modules;
using model::Exhaustive;
using model::Explorer;
using model::kMillisecond;
using model::Random;
using model::scheduler;
using model::Thread;
using Word = forksafe::Atomic<uint32_t>;

// The copy of OpenBLAS on OpenMP rests early, the one on its own threads does not.
constexpr int kOpenMp = 0, kThreads = 1, kCopies = 2;
forksafe::OpenBlasOpenMp& openmp_copy = forksafe::openblas_openmp_copies[0];
forksafe::OpenBlasThreads& threads_copy = forksafe::openblas_threads_copies[0];
forksafe::OpenBlas* const openblas_copies[kCopies] = {&openmp_copy, &threads_copy};

// Signals wait meanwhile.
class Masked {
 public:
  Masked() : thread_(scheduler.current()), mask_(thread_->mask) { thread_->mask = ~uint64_t{0}; }
  ~Masked() { thread_->mask = mask_; }
  Masked(const Masked&) = delete;
  Masked& operator=(const Masked&) = delete;

 private:
  Thread* thread_;
  uint64_t mask_;
};

// A recursive mutex. A signal handler finds it locked or free, never half locked.
struct Mutex {
  Word held{0};
  const Thread* owner = nullptr;
  int depth = 0;

  bool try_lock() {
    if (owner == scheduler.current()) {
      ++depth;
      return true;
    }
    const Masked masked;
    if (held.exchange(1) != 0) return false;
    owner = scheduler.current();
    depth = 1;
    return true;
  }
  void lock() {
    while (!try_lock()) forksafe::futex_wait_until(&held, 1, INT64_MAX);
  }
  void unlock() {
    if (--depth != 0) return;
    const Masked masked;
    owner = nullptr;
    held.store(0);
    forksafe::futex_wake_all(&held);
  }
};

// What the program and its libraries have in memory: a child gets a copy.
struct World {
  int half_done[kCopies] = {};  // calls that are in the middle of changing a copy's memory
  int cpu_number[kCopies] = {};
  Mutex mutex;   // other libraries' handlers take it
  Mutex malloc;  // glibc takes it after all prepare handlers
  Word calls_done{0};
};
World world;

// How a thread forks.
enum class Fork {
  kWhole,
  kAround,      // it reaches glibc around the library's fork(): the head alone
  kFails,       // the kernel says no
  kNotReached,  // another library's fork() fails before it calls glibc's
};

// Handlers of another library. `prepare` returns false if the thread never comes back from it.
struct Handlers {
  std::function<bool()> prepare = [] { return true; };
  std::function<void()> parent = [] {};
  std::function<void()> child = [] {};
};

struct Scenario {
  std::vector<Thread> threads;
  Handlers handlers;
  bool mutex_in_calls = false;  // a call takes the program's mutex, as malloc takes jemalloc's
  bool wipes = true;            // the kernel wipes fork_page in a child
  int stalls = 0;               // how often time may move though somebody could run
  /// The most time that may be lost in one execution, and whether every child is whole. They are
  /// not asked of an execution with a stall.
  int64_t may_lose = 0;
  bool all_whole = true;
  /// In the kernel's fork: before memory is copied, and when a part of it is.
  std::function<void()> before_copy = [] {};
  std::function<void()> within_copy = [] {};
  /// Runs before the threads.
  std::function<void()> prologue;
  /// Runs alone when all threads are done, before the last check.
  std::function<void()> epilogue;
};
const Scenario* scenario = nullptr;

// ---- the program's calls of BLAS ----

int compute(long, void*) {
  scheduler.step();
  ++world.half_done[kOpenMp];
  if (scenario->mutex_in_calls) {
    world.mutex.lock();
    world.mutex.unlock();
  }
  scheduler.step();
  --world.half_done[kOpenMp];
  return 0;
}

void* allocate(int) {
  scheduler.step();
  ++world.half_done[kThreads];
  scheduler.step();
  --world.half_done[kThreads];
  return nullptr;
}

template <typename Function>
Function door(const forksafe::DoorSet& doors, const char* name, int slot) {
  return reinterpret_cast<Function>(doors.function(doors.find(name), slot));
}

void call_openmp_build() {
  static const auto exec_blas =
      door<int (*)(long, void*)>(forksafe::openblas_openmp_doors, "exec_blas", kOpenMp);
  exec_blas(1, nullptr);
  world.calls_done.fetch_add(1);
  forksafe::futex_wake_all(&world.calls_done);
}
void call_threads_build() {
  static const auto memory_alloc =
      door<void* (*)(int)>(forksafe::openblas_threads_doors, "blas_memory_alloc", kThreads);
  memory_alloc(0);
}

void wait_for_calls(uint32_t count) {
  for (;;) {
    const uint32_t done = world.calls_done.load();
    if (done >= count) return;
    forksafe::futex_wait_until(&world.calls_done, done, INT64_MAX);
  }
}

// ---- memory, and what a fork makes of it ----

// Plain bytes of an object of the library's or the model's.
template <typename T>
struct Bytes {
  alignas(T) unsigned char bytes[sizeof(T)];
  void save(const T& object) { memcpy(bytes, static_cast<const void*>(&object), sizeof object); }
  void restore(T* object) const { memcpy(static_cast<void*>(object), bytes, sizeof *object); }
};

void set_modules(int count) {
  forksafe::module_count.store(count);
  forksafe::anything_adopted.store(count != 0);
}

struct Memory {
  Bytes<Module> modules[kCopies];
  Bytes<forksafe::OpenBlasOpenMp> openmp;
  Bytes<forksafe::OpenBlasThreads> threads;
  Bytes<forksafe::State> state;
  Bytes<Word> revoked;
  Bytes<forksafe::ForkPage> page;
  Bytes<World> program;
  int module_count;

  void save_library() {
    for (int i = 0; i < kCopies; ++i) modules[i].save(::modules[i]);
    openmp.save(openmp_copy);
    threads.save(threads_copy);
    state.save(forksafe_state);
    revoked.save(forksafe::revoked_holds);
    module_count = forksafe::module_count.load();
  }
  void save_page() { page.save(fork_page); }
  void save_program() { program.save(world); }
  void save() {
    save_library();
    save_page();
    save_program();
  }
  void restore() const {
    for (int i = 0; i < kCopies; ++i) modules[i].restore(&::modules[i]);
    openmp.restore(&openmp_copy);
    threads.restore(&threads_copy);
    state.restore(&forksafe_state);
    revoked.restore(&forksafe::revoked_holds);
    set_modules(module_count);
    page.restore(&fork_page);
    program.restore(&world);
  }
};

Memory initial;

// The kernel's lock of the memory map, which decides when a thread gets through pass_memory_map.
Word memory_map{0};

void check_at_rest(const char* where) {
  const auto require = [where](bool holds, const char* what) {
    if (!holds) scheduler.fail(std::string(where) + ": " + what);
  };
  for (int i = 0; i < kCopies; ++i) {
    forksafe::Gates& gates = fork_page.gates[i];
    require(!gates.calls.closed() && !gates.brief.closed(), "a gate is closed");
    require(gates.calls.wait_empty(0), "somebody is inside a calls gate");
    require(gates.brief.wait_empty(0), "somebody is inside a brief gate");
  }
  require(fork_page.rest.is_free(), "a thread has the right to rest the gates");
  require(fork_page.hold.is_free(), "a thread has the right to hold the gates");
}

void fork_as(Fork kind);

bool children_are_whole = true;

void run_child(const Memory& memory, Fork kind, const forksafe::OuterFork& outer) {
  static Memory parent;
  static Bytes<forksafe::ThreadState> own;
  Thread* self = scheduler.current();
  parent.save();
  own.save(self->state);
  const uint64_t mask = self->mask;
  scheduler.set_alone(true);
  memory.restore();
  if (scenario->wipes) memset(static_cast<void*>(&fork_page), 0, sizeof fork_page);

  forksafe::head_child();
  scenario->handlers.child();
  if (kind == Fork::kWhole) after_fork(outer);

  for (int i = 0; i < kCopies; ++i) {
    if (openblas_copies[i]->torn) children_are_whole = false;
    if (world.half_done[i] != 0 && !openblas_copies[i]->torn) {
      scheduler.fail(i == kOpenMp ? "a child has half a call in the OpenMP build, and is not torn"
                                  : "a child has half a call in the other build, and is not torn");
    }
  }
  if (thread_state.in_fork != outer.in_fork) scheduler.fail("a child thinks that it forks still");
  if (thread_state.in_new_child && !outer.in_fork) {
    scheduler.fail("the last step in a child was left out");
  }
  // In a handler that has interrupted a call, the child may exec or exit.
  if (thread_state.calls_depth[kOpenMp] == 0 && thread_state.brief_depth[kThreads] == 0) {
    call_openmp_build();
    call_threads_build();
    fork_as(Fork::kFails);
    if (self->in_handler || outer.in_fork) {
      // What the interrupted fork has taken is its own to give back.
    } else {
      check_at_rest("in a child");
    }
  }

  parent.restore();
  own.restore(&self->state);
  self->mask = mask;
  scheduler.set_alone(false);
}

// The kernel's part. Another thread may run while memory is copied; a signal waits for its end.
void clone(Fork kind, const forksafe::OuterFork& outer) {
  if (scheduler.alone() || kind == Fork::kFails) return;
  const auto memory = std::make_unique<Memory>();
  auto masked = std::make_unique<Masked>();
  scenario->before_copy();
  while (memory_map.exchange(1) != 0) forksafe::futex_wait_until(&memory_map, 1, INT64_MAX);
  memory->save_library();
  scheduler.step();
  scenario->within_copy();
  memory->save_page();
  scheduler.step();
  memory->save_program();
  memory_map.store(0);
  forksafe::futex_wake_all(&memory_map);
  masked.reset();
  run_child(*memory, kind, outer);
}

void fork_as(Fork kind) {
  forksafe::OuterFork outer = {thread_state.in_fork, thread_state.generation};
  if (kind != Fork::kAround) outer = forksafe::before_fork();
  if (kind != Fork::kNotReached) {
    const bool handlers = !scheduler.alone();
    if (handlers && !scenario->handlers.prepare()) return;
    forksafe::head_prepare();
    scheduler.step();
    world.malloc.lock();
    scheduler.step();
    clone(kind, outer);
    world.malloc.unlock();
    scheduler.step();
    forksafe::head_parent();
    if (handlers) scenario->handlers.parent();
  }
  if (kind != Fork::kAround) forksafe::after_fork(outer);
}

// ---- to run a scenario ----

void no_shutdown() {}

void make_initial_memory() {
  static bool made = false;
  if (made) return;
  made = true;
  set_modules(kCopies);
  for (int i = 0; i < kCopies; ++i) {
    modules[i].slot = i;
    forksafe::OpenBlas* blas = openblas_copies[i];
    blas->module = &modules[i];
    modules[i].copy = blas;
    blas->version = 326;
    blas->shutdown = no_shutdown;
    blas->cpu_number = &world.cpu_number[i];
    blas->exec_queue_is_named = true;
    world.cpu_number[i] = 2;
  }
  openmp_copy.openmp = true;
  modules[kOpenMp].rests_early = true;
  modules[kOpenMp].behind[forksafe::openblas_openmp_doors.find("exec_blas")] =
      reinterpret_cast<void*>(compute);
  modules[kThreads].behind[forksafe::openblas_threads_doors.find("blas_memory_alloc")] =
      reinterpret_cast<void*>(allocate);
  forksafe::openblas_openmp_copies.add();
  forksafe::openblas_threads_copies.add();
  initial.save();
}

struct Totals {
  long executions = 0;
  int64_t most_lost = 0;
};

// Runs one execution. If a check fails, scheduler.failure() says which.
void execute(const Scenario& s, Explorer* explorer, Totals* totals) {
  scenario = &s;
  initial.restore();
  memory_map.store(0);
  children_are_whole = true;
  if (s.prologue) s.prologue();
  scheduler.start(explorer, s.stalls);
  std::vector<Thread> threads;
  for (const Thread& thread : s.threads) {
    threads.emplace_back();
    threads.back().name = thread.name;
    threads.back().body = thread.body;
    threads.back().signals = thread.signals;
    threads.back().on_signal = thread.on_signal;
  }
  if (!scheduler.run(&threads)) return;
  if (s.epilogue) {
    std::vector<Thread> last(1);
    last.back().name = "epilogue";
    last.back().body = s.epilogue;
    if (!scheduler.run(&last)) return;
  }
  check_at_rest("at the end");
  if (scheduler.stalled()) return;
  if (scheduler.lost() > totals->most_lost) totals->most_lost = scheduler.lost();
  if (scheduler.lost() > s.may_lose) {
    scheduler.fail(std::to_string(scheduler.lost() / kMillisecond) + " ms were lost");
  }
  if (s.all_whole && !children_are_whole) scheduler.fail("a child is torn without need");
}

bool explore(const Scenario& s, Explorer* explorer, double seconds, Totals* totals) {
  const auto start = std::chrono::steady_clock::now();
  do {
    execute(s, explorer, totals);
    ++totals->executions;
    if (!scheduler.failure().empty()) {
      const std::string failure = scheduler.failure();
      explorer->again();
      scheduler.set_trace(true);
      execute(s, explorer, totals);
      scheduler.set_trace(false);
      FAIL_CHECK(failure << "; " << explorer->name());
      return false;
    }
    if (seconds > 0 && totals->executions % 64 == 0 &&
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds) {
      return true;
    }
  } while (explorer->next());
  return true;
}

uint64_t seed_of_run() {
  const char* text = getenv("FORKSAFE_MODEL_SEED");
  return text != nullptr ? strtoull(text, nullptr, 10) : 1;
}

// `preemptions` exhaustively, then a thousand random executions.
void explore(const Scenario& s, int preemptions) {
  make_initial_memory();
  Totals totals;
  Exhaustive exhaustive(preemptions);
  bool fine = explore(s, &exhaustive, 0, &totals);
  const long all = totals.executions;
  if (fine) {
    const char* text = getenv("FORKSAFE_MODEL_SECONDS");
    const double seconds = text != nullptr ? atof(text) : 0;
    Random random(seed_of_run(), seconds > 0 ? INT32_MAX : 1000);
    fine = explore(s, &random, seconds, &totals);
  }
  CHECK(fine);
  if (getenv("FORKSAFE_MODEL_VERBOSE") != nullptr) {
    WARN(all << " executions with at most " << preemptions << " preemptions, "
             << totals.executions - all
             << " random ones; most time lost: " << totals.most_lost / kMillisecond << " ms");
  }
}

Thread thread(const char* name, std::function<void()> body) {
  Thread result;
  result.name = name;
  result.body = std::move(body);
  return result;
}

Thread forker(const char* name, Fork kind = Fork::kWhole) {
  return thread(name, [kind] { fork_as(kind); });
}

Thread computing(int calls = 1) {
  return thread("computing", [calls] {
    for (int i = 0; i < calls; ++i) {
      call_openmp_build();
      call_threads_build();
    }
  });
}

// Another library's handlers, which hold the program's mutex over the fork.
Handlers mutex_handlers() {
  Handlers handlers;
  handlers.prepare = [] {
    world.mutex.lock();
    return true;
  };
  handlers.parent = handlers.child = [] { world.mutex.unlock(); };
  return handlers;
}

template <typename... Threads>
Scenario scenario_of(Threads... threads) {
  Scenario s;
  (s.threads.push_back(std::move(threads)), ...);
  return s;
}

}  // namespace

void forksafe::pass_memory_map(void*) {
  while (memory_map.load() != 0) futex_wait_until(&memory_map, 1, INT64_MAX);
}

TEST_CASE("a thread forks while another computes", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), computing());
  for (const bool wipes : {true, false}) {
    s.wipes = wipes;
    explore(s, 2);
  }
}

TEST_CASE("two threads fork while another computes", "[interleavings]") {
  explore(scenario_of(forker("F1"), forker("F2"), computing()), 2);
}

TEST_CASE("a library is loaded, and computes, while another thread forks", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), thread("loading", [] {
                             scheduler.step();
                             set_modules(kCopies);
                             call_openmp_build();
                             call_threads_build();
                           }));
  s.all_whole = false;
  for (const int before : {0, 1}) {
    s.prologue = [before] { set_modules(before); };
    explore(s, 2);
  }
}

TEST_CASE("forks that fail leave nothing behind", "[interleavings]") {
  explore(scenario_of(forker("F1", Fork::kFails), forker("F2"), computing()), 1);
  explore(scenario_of(forker("F1", Fork::kNotReached), forker("F2"), computing()), 2);
}

TEST_CASE("if a thread loses the processor, a torn child knows that it is torn",
          "[interleavings]") {
  // Within clone, in the wait at the gate, and within the call.
  Scenario s = scenario_of(forker("F1"), computing());
  s.stalls = 1;
  explore(s, 3);
  s = scenario_of(forker("F1"), computing(2));
  s.stalls = 2;
  explore(s, 2);
  s = scenario_of(forker("F1"), forker("F2"), computing());
  s.stalls = 3;
  explore(s, 1);
}

TEST_CASE("a prepare handler takes a mutex whose owner computes", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), thread("owner", [] {
                             world.mutex.lock();
                             call_openmp_build();
                             call_threads_build();
                             world.mutex.unlock();
                           }));
  s.handlers = mutex_handlers();
  s.may_lose = 50 * kMillisecond;
  explore(s, 2);
}

TEST_CASE("a prepare handler takes a mutex that calls need", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), computing());
  s.handlers = mutex_handlers();
  s.mutex_in_calls = true;
  explore(s, 2);
  s = scenario_of(forker("F1"), forker("F2"), computing());
  s.handlers = mutex_handlers();
  s.mutex_in_calls = true;
  explore(s, 1);
}

TEST_CASE("a thread forks with a recursive mutex that prepare handlers take", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), thread("F2, owner", [] {
                             world.mutex.lock();
                             fork_as(Fork::kWhole);
                             world.mutex.unlock();
                           }));
  s.handlers = mutex_handlers();
  s.may_lose = 50 * kMillisecond;
  explore(s, 2);
}

TEST_CASE("a prepare handler waits for a thread that computes", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), thread("computing", [] {
                             call_openmp_build();
                             call_openmp_build();
                           }));
  s.handlers.prepare = [] {
    wait_for_calls(2);
    return true;
  };
  s.may_lose = 50 * kMillisecond;
  explore(s, 2);
}

TEST_CASE("a prepare handler computes", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), forker("F2"));
  s.handlers.prepare = [] {
    call_openmp_build();
    call_threads_build();
    return true;
  };
  s.may_lose = 50 * kMillisecond;
  explore(s, 2);
}

TEST_CASE("a prepare handler computes while a fork comes around the library", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), forker("F2", Fork::kAround));
  s.handlers.prepare = [] {
    call_openmp_build();
    return true;
  };
  explore(s, 2);
}

TEST_CASE("a signal handler forks within a fork", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), thread("computing", [] { call_threads_build(); }));
  s.threads[0].signals = 1;
  s.threads[0].on_signal = [] { fork_as(Fork::kWhole); };
  explore(s, 3);
  s = scenario_of(forker("F1"), computing());
  s.threads[0].signals = 1;
  s.threads[0].on_signal = [] {
    call_openmp_build();
    fork_as(Fork::kWhole);
  };
  explore(s, 2);
  s = scenario_of(forker("F1"), forker("F2"));
  s.threads[0].signals = 1;
  s.threads[0].on_signal = [] { fork_as(Fork::kWhole); };
  explore(s, 2);
}

TEST_CASE("a signal handler forks within a call", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), computing());
  s.threads[1].signals = 1;
  s.threads[1].on_signal = [] { fork_as(Fork::kWhole); };
  s.all_whole = false;
  // Each fork waits once: the other for this thread, and this one for itself where the handler
  // comes between the two steps of Gate::leave.
  s.may_lose = 2050 * kMillisecond;
  explore(s, 2);
}

// A collector stops all threads by a signal, and goes on when each has answered. One of them is
// stopped while it holds malloc's lock, for which forks wait.
TEST_CASE("all threads are stopped by a signal", "[interleavings]") {
  // By those that have been stopped, and those that had ended before.
  static Word answers{0}, stopped{0};
  static std::set<const Thread*> answered;
  const auto answer = [] {
    const Masked masked;
    if (!answered.insert(scheduler.current()).second) return;
    answers.fetch_add(1);
    forksafe::futex_wake_all(&answers);
  };
  const auto stoppable = [answer](const char* name, std::function<void()> body) {
    Thread result = thread(name, [answer, body] {
      body();
      answer();
    });
    result.on_signal = [answer] {
      answer();
      while (stopped.load() != 0) forksafe::futex_wait_until(&stopped, 1, INT64_MAX);
    };
    return result;
  };
  const auto collect = [] {
    stopped.store(1);
    for (Thread& other : scheduler.threads()) {
      if (&other != scheduler.current()) scheduler.send_signal(&other);
    }
    for (;;) {
      const uint32_t seen = answers.load();
      if (seen == 3) break;
      forksafe::futex_wait_until(&answers, seen, INT64_MAX);
    }
    stopped.store(0);
    forksafe::futex_wake_all(&stopped);
  };
  const auto allocate_memory = [] {
    world.malloc.lock();
    scheduler.step();
    world.malloc.unlock();
  };
  const auto forking = [&](const char* name, Fork kind = Fork::kWhole) {
    return stoppable(name, [kind] { fork_as(kind); });
  };
  // F2 waits for the right to hold the gates, not for the right to rest them.
  Scenario s = scenario_of(forking("F1"), forking("F2", Fork::kAround),
                           stoppable("allocating", allocate_memory), thread("collector", collect));
  s.may_lose = 50 * kMillisecond;
  s.prologue = [] {
    answers.store(0);
    answered.clear();
  };
  explore(s, 1);
  const auto prologue = s.prologue;
  s = scenario_of(forking("F1"), stoppable("computing", computing().body),
                  stoppable("allocating", allocate_memory), thread("collector", collect));
  // The fork may wait for a call that is stopped.
  s.may_lose = 1050 * kMillisecond;
  s.all_whole = false;
  s.prologue = prologue;
  explore(s, 1);
}

TEST_CASE("the kernel takes longer for a fork than others wait", "[interleavings]") {
  const auto take_long = [] {
    if (scheduler.current()->name != "F1") return;
    static Word nobody{0};
    const int64_t end = scheduler.now() + 2200 * kMillisecond;
    while (scheduler.now() < end) forksafe::futex_wait_until(&nobody, 0, end);
  };
  Scenario s = scenario_of(forker("F1"), forker("F2"), computing());
  s.may_lose = 2250 * kMillisecond;
  s.all_whole = false;
  s.before_copy = take_long;
  explore(s, 2);
  s.before_copy = [] {};
  s.within_copy = take_long;
  explore(s, 2);
}

TEST_CASE("forks that each take long follow each other", "[interleavings]") {
  // Together they take longer than one may wait for another. None loses its lease.
  Scenario s = scenario_of(forker("F1"), forker("F2"), forker("F3"));
  s.before_copy = [] {
    static Word nobody{0};
    const int64_t end = scheduler.now() + 1500 * kMillisecond;
    while (scheduler.now() < end) forksafe::futex_wait_until(&nobody, 0, end);
  };
  s.may_lose = 3 * 1510 * kMillisecond;
  explore(s, 1);
}

TEST_CASE("a thread leaves its fork by a longjmp out of a signal handler", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), computing());
  s.threads[0].signals = 1;
  s.threads[0].on_signal = [] {
    // A process with one thread does not lock malloc.
    if (world.malloc.owner == scheduler.current()) world.malloc.unlock();
    scheduler.leave();
  };
  s.epilogue = [] {
    call_openmp_build();
    call_threads_build();
    fork_as(Fork::kWhole);
  };
  s.all_whole = false;
  // A call at a gate that F1 has shut or holds, and then a fork that wants to rest the gates.
  s.may_lose = 3200 * kMillisecond;
  explore(s, 2);
  s.threads.push_back(forker("F2"));
  explore(s, 2);
}

TEST_CASE("a thread leaves its prepare handler for good", "[interleavings]") {
  Scenario s = scenario_of(forker("F1"), computing());
  s.handlers.prepare = [] { return scheduler.current()->name != "F1"; };
  s.epilogue = [] {
    call_openmp_build();
    fork_as(Fork::kWhole);
  };
  s.may_lose = 100 * kMillisecond;
  explore(s, 2);
  s = scenario_of(thread("F1",
                         [] {
                           fork_as(Fork::kWhole);
                           call_openmp_build();
                         }),
                  forker("F2"), forker("F3", Fork::kAround));
  s.handlers.prepare = [] { return scheduler.current()->name != "F1"; };
  s.epilogue = [] { fork_as(Fork::kWhole); };
  s.may_lose = 150 * kMillisecond;
  explore(s, 1);
}

// SPDX-License-Identifier: Apache-2.0
#include "verdicts/lone_spin.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>

#include "base/words.h"
#include "verdicts/other_threads.h"

namespace forksafe::cli {
namespace {

using Clock = std::chrono::steady_clock;

// The thread is watched for kDuration, and until it was seen at known places often enough. It has
// run before each sample. If it does not get a processor, nothing can be told.
constexpr auto kDuration = std::chrono::seconds(1);
constexpr auto kPatience = std::chrono::seconds(3);
constexpr int kRepeats = 25;
constexpr uint64_t kRunNs = 50 * 1000;
constexpr auto kPause = std::chrono::milliseconds(15);
constexpr size_t kMostStack = 65536;  // of the region's body
constexpr size_t kMostFrames = 64;

bool starts_region(const Frame& frame) {
  return starts_with(frame.function, "GOMP_parallel") ||
         starts_with(frame.function, "__kmpc_fork_call");
}

const ThreadRuntime* runtime_of(const std::vector<ThreadRuntime>& runtimes, const Frame& frame) {
  const auto found = std::find_if(runtimes.begin(), runtimes.end(), [&](const ThreadRuntime& r) {
    return r.object == frame.object && has_function(r, frame.function);
  });
  return found != runtimes.end() ? &*found : nullptr;
}

// The frame that spins, the first one of another object around it, and that of the region.
struct Place {
  const Frame* body = nullptr;
  const Frame* caller = nullptr;
  const Frame* region = nullptr;

  const Frame* end() const { return region != nullptr ? region : caller; }
};

// None if the thread is in a runtime, or in a function of the C library other than sched_yield.
std::optional<Place> find_place(const std::vector<Frame>& frames,
                                const std::vector<ThreadRuntime>& runtimes) {
  Place place;
  for (const Frame& frame : frames) {
    if (frame.object == nullptr) break;
    if (place.body == nullptr && is_c_library(*frame.object)) {
      if (frame.function.find("sched_yield") == std::string::npos) return std::nullopt;
      continue;
    }
    if (place.body == nullptr) {
      if (runtime_of(runtimes, frame) != nullptr) return std::nullopt;
      place.body = &frame;
    }
    if (place.caller == nullptr && frame.object != place.body->object) place.caller = &frame;
    if (starts_region(frame) && runtime_of(runtimes, frame) != nullptr) {
      place.region = &frame;
      return place;
    }
  }
  if (place.caller == nullptr) return std::nullopt;
  return place;
}

// Whether another process or a device may write to memory of the process, and so end its wait.
// glibc's named semaphores are no such memory: one sleeps there. A file that is mapped to be read
// is constant, like glibc's gconv-modules.cache.
bool shares_memory(pid_t pid) {
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string line; std::getline(maps, line);) {
    char rights[5] = "";
    int path = 0;
    if (sscanf(line.c_str(), "%*x-%*x %4s %*x %*s %*u %n", rights, &path) != 1) continue;
    if (rights[3] != 's' || path == 0) continue;
    const std::string file = line.substr(static_cast<size_t>(path));
    const auto is_in = [&](const char* folder) { return starts_with(file, folder); };
    if (is_in("/dev/shm/sem.")) continue;
    if (rights[1] == 'w' || is_in("/dev/") || is_in("/memfd:") || is_in("/SYSV")) return true;
  }
  return false;
}

// What a loop that only waits leaves as it is: at one place it has the same registers and the same
// stack each time.
std::string unchanging_state(const Process& process, const Sample& sample, const Place& place) {
  std::string state = sample.registers;
  if (place.body != sample.frames.data()) {  // in sched_yield, whose own registers change
    state.assign(reinterpret_cast<const char*>(place.body->kept.data()), sizeof place.body->kept);
  }
  const size_t size = place.end()->stack - place.body->stack;
  if (place.end()->stack < place.body->stack || size > kMostStack) return "";
  std::string stack(size, '\0');
  if (!process.read_memory(place.body->stack, stack.data(), size)) return "";
  return state + stack;
}

// What was seen of a thread that may spin.
class ThreadWatch {
 public:
  explicit ThreadWatch(const LoneSuspect& suspect) : suspect_(suspect) {}

  // False when the thread need not be seen again.
  bool take(const Sample& sample, bool long_enough) {
    const std::optional<Place> place = find_place(sample.frames, *suspect_.runtimes);
    if (!place) return false;
    const std::string state = unchanging_state(*suspect_.process, sample, *place);
    std::vector<uintptr_t> addresses = {place->body == sample.frames.data()};
    for (const Frame* f = place->body; f <= place->end(); ++f) addresses.push_back(f->address);
    const auto [known, is_new] = states_.try_emplace(std::move(addresses), state);
    if (state.empty() || known->second != state) return false;
    if (!is_new) ++repeats_;
    proven_ = long_enough && repeats_ >= kRepeats;
    return !proven_;
  }
  bool proven() const { return proven_; }

 private:
  const LoneSuspect& suspect_;
  // By the place in the body: whether that is the innermost frame, and the addresses from there to
  // the end. Without optimization a function of the body's is called from several places.
  std::map<std::vector<uintptr_t>, std::string> states_;
  int repeats_ = 0;  // samples at a place that was seen before
  bool proven_ = false;
};

}  // namespace

std::optional<LoneSpin> find_lone_thread(const Process& process, const Objects& objects,
                                         const std::vector<ThreadStack>& stacks,
                                         const std::vector<ThreadRuntime>& runtimes) {
  if (!process.status().forked || process.core() != nullptr) return std::nullopt;
  const ThreadStack* alone = nullptr;
  for (const ThreadStack& stack : stacks) {
    if (waits_for_thread(stack)) continue;
    if (alone != nullptr) return std::nullopt;
    alone = &stack;
  }
  if (alone == nullptr) return std::nullopt;
  const std::optional<Place> place = find_place(alone->frames, runtimes);
  if (!place || handles_signals(process, objects) || shares_memory(process.pid())) {
    return std::nullopt;
  }
  LoneSpin spin = {alone->tid, place->body->object, place->body->function, nullptr, ""};
  if (place->region != nullptr) {
    spin.runtime = runtime_of(runtimes, *place->region);
    spin.region = place->region->function;
    if (spin.runtime->workers.value_or(0) > 0) return std::nullopt;
  }
  return spin;
}

std::vector<bool> spin_alone(const std::vector<LoneSuspect>& suspects) {
  std::vector<ThreadWatch> watches;
  std::vector<Sampled> threads;
  for (const LoneSuspect& suspect : suspects) {
    watches.emplace_back(suspect);
    threads.push_back({suspect.process, suspect.objects, suspect.spin.tid});
  }
  const auto start = Clock::now();
  sample_stacks(threads, {kMostFrames, kRunNs, kPause, kPatience},
                [&](size_t i, const Sample& sample) {
                  return watches[i].take(sample, Clock::now() - start >= kDuration);
                });
  std::vector<bool> result;
  result.reserve(watches.size());
  for (const ThreadWatch& watch : watches) result.push_back(watch.proven());
  return result;
}

}  // namespace forksafe::cli

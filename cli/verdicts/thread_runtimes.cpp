// SPDX-License-Identifier: Apache-2.0
#include "verdicts/thread_runtimes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "base/words.h"
#include "state.h"

namespace forksafe::cli {
namespace {

// ---- which runtime an object is ----

bool exports_openblas(const Object& object) {
  if (object.defines("openblas_get_config")) return true;
  // scipy_openblas_get_config64_ and the like
  return object.image().any_symbol([](const char* name, const Symbol&) {
    return strstr(name, "openblas_get_config") != nullptr;
  });
}

// Functions of every build with threads. Where OpenBLAS is linked in, they may be named in .symtab
// alone, which takes milliseconds to read.
constexpr const char* kOpenBlasMark = "blas_memory_alloc";

bool is_openblas(const Object& object) {
  if (exports_openblas(object)) return true;
  return (object.image().imports("pthread_create") || object.image().imports("GOMP_parallel")) &&
         object.address_of(kOpenBlasMark) && object.address_of("exec_blas");
}

// Debian's libblas.so.3 of BLIS hides BLIS's own names: see shim/runtimes/blis.cpp.
bool is_blis(const Object& object) {
  if (object.defines("bli_info_get_version_str")) return true;
  return object.defines("dgemm_") && object.image().imports("pthread_barrier_wait") &&
         object.image().imports("pthread_mutex_trylock") && object.image().imports("pthread_once");
}

// A program has libmkl_rt, which loads libmkl_core, or is linked to MKL's layers, one of which is
// libmkl_core. So libmkl_core is loaded in both cases as soon as MKL is used.
bool is_mkl(const Object& object) {
  return starts_with(object.name(), "libmkl_core.so") && object.defines("mkl_serv_get_version");
}

// The largest thread-local storage of libgomp in any version (GCC 4.9 to 16). It has no initial
// values. An object with more of it has other variables there.
constexpr size_t kMostGompTls = 256;

bool is_linked_in(Kind kind, const Object& object, const Objects& objects) {
  if (&object == objects.program()) return true;
  if (kind == Kind::kOpenBlas) return !exports_openblas(object);
  return kind == Kind::kGnuOpenMp &&
         (!object.defines("GOMP_parallel") || object.tls_image_size() != 0 ||
          object.tls_size() > kMostGompTls);
}

// The name by which the recognisers below find a copy that is linked in.
NamedBy named_by(Kind kind, const Object& object) {
  if (kind == Kind::kGnuOpenMp) return object.named_by("GOMP_parallel");
  if (kind == Kind::kOpenBlas && !exports_openblas(object)) return object.named_by(kOpenBlasMark);
  return NamedBy::kDynamicSymbols;
}

// Whether the library can't take care of a copy that is linked in: see gnu_openmp.cpp and
// openblas/internals.cpp in shim/runtimes.
bool is_left_alone(Kind kind, const Object& object) {
  if (kind == Kind::kOpenBlas) return !exports_openblas(object);
  return kind == Kind::kGnuOpenMp &&
         !(object.defines("GOMP_parallel") && object.has_thread_local("gomp_tls_data"));
}

// LLVM's and Intel's OpenMP, which define GOMP_parallel too.
bool is_kmp(const Object& object) { return object.defines("__kmpc_fork_call"); }

struct Recogniser {
  Kind kind;
  bool (*recognise)(const Object& object);
  const char* name;
};

// The first that recognises an object counts.
constexpr Recogniser kRecognisers[] = {
    {Kind::kIntelOpenMp,
     [](const Object& o) { return is_kmp(o) && starts_with(o.name(), "libiomp"); },
     "Intel's OpenMP"},
    {Kind::kLlvmOpenMp, is_kmp, "LLVM's OpenMP"},
    {Kind::kGnuOpenMp, is_gnu_openmp, "GNU OpenMP"},
    {Kind::kMkl, is_mkl, "MKL"},
    {Kind::kOpenBlas, is_openblas, "OpenBLAS"},
    {Kind::kBlis, is_blis, "BLIS"},
};

Threading threading_of(const Object& object) {
  // Only builds on their own threads have this (driver/others/blas_server.c). The program around a
  // copy that is linked in may use OpenMP by itself.
  if (object.address_of("exec_blas_async")) return Threading::kOwn;
  if (object.image().imports("GOMP_parallel") || object.image().imports("__kmpc_fork_call")) {
    return Threading::kOpenMp;
  }
  return object.image().imports("pthread_create") ? Threading::kOwn : Threading::kNone;
}

// The threading layer of MKL is a separate library.
Threading mkl_threading(const Objects& objects) {
  for (const auto& object : objects) {
    if (starts_with(object->name(), "libmkl_gnu_thread")) return Threading::kOpenMp;
    if (starts_with(object->name(), "libmkl_intel_thread")) return Threading::kOpenMp;
    if (starts_with(object->name(), "libmkl_tbb_thread")) return Threading::kTbb;
  }
  return Threading::kNone;
}

// ---- how it is linked ----

class Links {
 public:
  Links(const Process& process, const Objects& objects) {
    for (const auto& object : objects) {
      by_name_[object->name()] = object.get();
      if (object->image().soname() != nullptr) by_name_[object->image().soname()] = object.get();
    }
    for (const auto& object : objects) {
      object->image().each_needed([&](const char* name) {
        const auto found = by_name_.find(name);
        if (found != by_name_.end()) needed_by_[found->second].push_back(object->name());
        needs_[object.get()].push_back(found != by_name_.end() ? found->second : nullptr);
      });
    }
    if (objects.program() != nullptr) reach(objects.program(), &at_start_);
    const std::string preload = process.environment("LD_PRELOAD");
    for (const auto& object : objects) {
      // LD_PRELOAD may have the name of a link to the file.
      const char* soname = object->image().soname();
      if (preload.find(object->name()) != std::string::npos ||
          (soname != nullptr && preload.find(soname) != std::string::npos)) {
        reach(object.get(), &preloaded_);
      }
    }
  }

  std::string how(const Object* object) const {
    if (at_start_.count(object) != 0) return "at start";
    return preloaded_.count(object) != 0 ? "preload" : "dlopen";
  }
  std::vector<std::string> needed_by(const Object* object) const {
    const auto found = needed_by_.find(object);
    return found != needed_by_.end() ? found->second : std::vector<std::string>();
  }
  /// The one of `candidates` that the dynamic linker finds first: a preloaded one, one that the
  /// program is linked to, the one that `object` names in DT_NEEDED, or the first one.
  const Object* needed(const Object* object, const std::vector<const Object*>& candidates) const {
    for (const auto* reached : {&preloaded_, &at_start_}) {
      for (const Object* candidate : candidates) {
        if (reached->count(candidate) != 0) return candidate;
      }
    }
    const auto found = needs_.find(object);
    for (const Object* candidate : candidates) {
      if (found != needs_.end() &&
          std::count(found->second.begin(), found->second.end(), candidate) != 0) {
        return candidate;
      }
    }
    return candidates.empty() ? nullptr : candidates.front();
  }

 private:
  void reach(const Object* object, std::set<const Object*>* reached) {
    if (object == nullptr || !reached->insert(object).second) return;
    for (const Object* next : needs_[object]) reach(next, reached);
  }

  std::map<std::string, const Object*> by_name_;
  std::map<const Object*, std::vector<const Object*>> needs_;
  std::map<const Object*, std::vector<std::string>> needed_by_;
  std::set<const Object*> at_start_;
  std::set<const Object*> preloaded_;
};

// The object to which `function` is bound in the GOT of `object`. The GOT has it after the first
// call.
const Object* bound_to(const Process& process, const Objects& objects, const Object& object,
                       const char* function) {
  const Object* result = nullptr;
  object.image().each_slot([&](const char* name, void** slot) {
    uintptr_t target = 0;
    const uintptr_t address =
        reinterpret_cast<uintptr_t>(slot) - object.image().base() + object.base();
    if (strcmp(name, function) != 0 || !process.read_memory(address, &target, sizeof target)) {
      return;
    }
    const Object* found = objects.at(target);
    if (found != nullptr && found != &object) result = found;
  });
  return result;
}

// ---- details of one runtime ----

// 321 for 0.3.21, 10000 for 1.0.0, 0 if it is not known.
int openblas_number(const std::string& version) {
  int major = 0;
  int minor = 0;
  int patch = 0;
  if (sscanf(version.c_str(), "%d.%d.%d", &major, &minor, &patch) < 2) return 0;
  return major * 10000 + minor * 100 + patch;
}

// "OpenBLAS 0.3.21 NO_AFFINITY ... MAX_THREADS=64". Every version from 0.3.4 on has this text.
std::string openblas_version(const Object& object) {
  static const std::string kBefore = "OpenBLAS 0.";
  const std::string config = object.find_text(kBefore);
  if (config.empty()) return "";
  const size_t begin = kBefore.size() - 2;
  return config.substr(begin, config.find(' ', begin) - begin);
}

// A build for many processors has one table of functions for each (gotoblas_HASWELL and so on), and
// `gotoblas` points to the table in use (driver/others/dynamic.c).
std::string openblas_architecture(const Process& process, const Object& object) {
  const auto pointer = object.address_of("gotoblas");
  uintptr_t table = 0;
  if (!pointer || !process.read_memory(*pointer, &table, sizeof table)) return "";
  std::string name = object.variable_at(table);
  if (!starts_with(name, "gotoblas_")) return "";
  name = name.substr(strlen("gotoblas_"));
  if (name == "SKYLAKEX") return "SkylakeX";
  for (size_t i = 1; i < name.size(); ++i) name[i] = static_cast<char>(tolower(name[i]));
  return name;
}

// The first number of a list such as OMP_NUM_THREADS=4,2; 0 if there is none.
int first_number(const std::string& text) {
  char* end = nullptr;
  const long value = strtol(text.c_str(), &end, 10);
  return end != text.c_str() && value > 0 && value <= 1 << 20 ? static_cast<int>(value) : 0;
}

std::optional<int> read_int(const Process& process, const Object& object, const char* variable) {
  const auto address = object.address_of(variable);
  int value = 0;
  if (!address || !process.read_memory(*address, &value, sizeof value)) return std::nullopt;
  return value;
}

void find_pool(const Process& process, ThreadRuntime* runtime) {
  if (runtime->kind != Kind::kOpenBlas || runtime->threading != Threading::kOwn) return;
  if (const auto threads = read_int(process, *runtime->object, "blas_num_threads")) {
    runtime->pool_workers = *threads - 1;
  }
  if (const auto made = read_int(process, *runtime->object, "blas_server_avail")) {
    runtime->pool_made = *made != 0;
  }
}

void find_threads(const Process& process, ThreadRuntime* runtime) {
  if (!runtime->is_openmp() && runtime->threading == Threading::kNone) {
    runtime->threads = 1;
    runtime->threads_from = "default";
    return;
  }
  if (runtime->kind == Kind::kOpenBlas) {
    runtime->threads = read_int(process, *runtime->object, "blas_cpu_number");
    if (runtime->threads) runtime->threads_from = "memory";
    return;
  }
  std::vector<const char*> variables = {"OMP_NUM_THREADS"};
  if (runtime->kind == Kind::kMkl) variables = {"MKL_NUM_THREADS", "OMP_NUM_THREADS"};
  if (runtime->kind == Kind::kBlis) variables = {"BLIS_NUM_THREADS", "OMP_NUM_THREADS"};
  for (const char* variable : variables) {
    if (const int number = first_number(process.environment(variable))) {
      runtime->threads = number;
      runtime->threads_from = "environment";
      return;
    }
  }
  // BLIS computes with one thread by default (docs/Multithreading.md of BLIS).
  const int number = runtime->kind == Kind::kBlis ? 1 : process.processors();
  if (number == 0) return;
  runtime->threads = number;
  runtime->threads_from = "default";
}

// ---- the fork handlers of LLVM's and Intel's OpenMP ----

constexpr const char* kInitAtFork = "KMP_INIT_AT_FORK";

// The comparison of the runtime (kmp_str.cpp, __kmp_str_match): one of `value` and `word` begins
// with the other, and the shorter one has at least `least` letters. If `least` is 0, both are the
// same.
bool kmp_matches(const std::string& value, const std::string& word, size_t least) {
  const size_t common = std::min(value.size(), word.size());
  for (size_t i = 0; i < common; ++i) {
    if (tolower(static_cast<unsigned char>(value[i])) != word[i]) return false;
  }
  return least > 0 ? common >= least : value.size() == word.size();
}

// Whether the runtime takes this value for "no" (kmp_str.cpp, __kmp_str_match_false).
bool kmp_says_no(const std::string& value) {
  return kmp_matches(value, "false", 1) || kmp_matches(value, "off", 2) ||
         kmp_matches(value, "0", 1) || kmp_matches(value, ".false.", 2) ||
         kmp_matches(value, ".f.", 2) || kmp_matches(value, "no", 1) ||
         kmp_matches(value, "disabled", 0);
}

// The value that switches the fork handlers off, or an empty text.
//
// The runtime reads the variable at its first call. What it has read can't be seen afterwards:
// __kmp_need_register_atfork is 0 whether handlers were registered or not. So this function goes by
// the current value. If the program changes it after the first call of the runtime, the runtime
// does not notice, but the process is still called unsafe.
std::string find_fork_care_off(const Process& process, const Objects& objects) {
  const std::string value = variable_now(process, objects, kInitAtFork).value_or("");
  return kmp_says_no(value) ? value : "";
}

// ---- what a fork does ----

const Fork kSafe = {true, "safe", "parent and children compute on"};
const Fork kChildHangs = {false, "child hangs", "a child that computes hangs"};
// What forksafe changes for a copy that is linked in.
Fork left_alone(const Fork& fork) {
  if (fork.safe) return fork;
  return {false, fork.word, fork.text + ": forksafe leaves a copy that is linked in alone"};
}
const Fork kMayHang = {false, "may hang", "a child that computes hangs at times"};

// This is what was measured: the cases are in tests/scenarios.
void find_usual_behaviour(ThreadRuntime* r) {
  r->idle = r->in_flight = r->idle_guarded = r->in_flight_guarded = kSafe;
  const bool gnu = r->openmp != nullptr && r->openmp->is(is_gnu_openmp);
  const bool one_thread = r->threads == 1 && r->workers.value_or(0) == 0;
  switch (r->kind) {
    case Kind::kGnuOpenMp:
      if (!one_thread) r->idle = r->in_flight = kChildHangs;
      if (r->left_alone) r->idle_guarded = r->in_flight_guarded = left_alone(r->idle);
      return;
    case Kind::kLlvmOpenMp:
    case Kind::kIntelOpenMp: return;  // they have fork handlers of their own
    case Kind::kBlis:
      if (r->threading == Threading::kOpenMp && gnu && !one_thread) r->idle = kChildHangs;
      // The memory pools of BLIS have locks in every build with threads.
      if (r->threading != Threading::kNone) r->in_flight = kMayHang;
      return;
    case Kind::kMkl:
      if (one_thread) return;
      if (r->threading == Threading::kOpenMp && gnu) r->idle = r->in_flight = kChildHangs;
      // TBB's market has a lock, and no fork handler for it.
      if (r->threading == Threading::kTbb) r->in_flight = r->in_flight_guarded = kMayHang;
      return;
    case Kind::kOpenBlas: break;
  }
  if (r->threading == Threading::kNone) return;
  // The library does not read debug files.
  const NamedBy named_by = r->object->named_by("blas_cpu_number");
  const bool known = named_by == NamedBy::kDynamicSymbols || named_by == NamedBy::kSymbolTable;
  const int version = openblas_number(r->version);
  if (r->threading == Threading::kOpenMp) {
    if (gnu && !one_thread) r->idle = kChildHangs;
    r->in_flight = kChildHangs;
    // LLVM's and Intel's OpenMP forget their locks at a fork. OpenBLAS uses such locks from 0.3.27
    // on.
    if (r->openmp != nullptr && !gnu && !one_thread && version >= 327) {
      r->idle = {false, "child crashes", "a child that computes crashes"};
    }
  } else {
    if (!one_thread) {
      r->idle = {true, "pool lost", "children compute on, but the parent's pool is torn down"};
      r->in_flight = {false, "hangs", "the parent, its children or both hang"};
    }
    // numpy issue 30092, fixed in 0.3.31.
    if (version == 330) {
      r->idle = {false, "LU may hang", "an LU decomposition after it hangs at times"};
      r->idle_guarded = r->idle;
      r->in_flight_guarded = r->idle;
    }
    // They count the free processors in a variable that only .symtab names.
    if (version >= 327 && version <= 329 && !r->object->has_symbol_table()) {
      r->in_flight_guarded = {true, "safe",
                              "parent and children compute on; children with one thread where "
                              "many others could be inside calls"};
    }
  }
  if (r->left_alone) {
    r->idle_guarded = left_alone(r->idle);
    r->in_flight_guarded = left_alone(r->in_flight);
  } else if (!known) {
    r->idle_guarded = {r->idle.safe, "left alone", "left as it is: no symbol names its internals"};
    r->in_flight_guarded = {r->in_flight.safe, "left alone", r->idle_guarded.text};
  }
}

void find_behaviour(const Process& process, ThreadRuntime* r) {
  find_usual_behaviour(r);
  if (r->fork_care_off.empty() || (r->threads == 1 && r->workers.value_or(0) == 0)) return;
  r->idle = r->in_flight = {
      false, "child hangs",
      fmt::format("a child that computes hangs: {} is {}", kInitAtFork, r->fork_care_off)};
  if (fork_care_setting(process) != "") r->idle_guarded = r->in_flight_guarded = r->idle;
}

}  // namespace

const char* ThreadRuntime::name() const {
  for (const Recogniser& r : kRecognisers) {
    if (r.kind == kind) return r.name;
  }
  return "";
}

bool ThreadRuntime::is_openmp() const {
  return kind == Kind::kGnuOpenMp || kind == Kind::kLlvmOpenMp || kind == Kind::kIntelOpenMp;
}

const char* shared_library(const ThreadRuntime& runtime) {
  return runtime.kind == Kind::kOpenBlas ? "libopenblas.so" : "libgomp.so";
}

// The functions of a statically linked copy may be named in .symtab alone, which takes milliseconds
// to read. An object with such a copy has thread-local storage, imports pthread_create and does not
// import GOMP_parallel. The tables of all other objects are not read.
bool is_gnu_openmp(const Object& object) {
  if (is_kmp(object)) return false;
  if (object.defines("GOMP_parallel")) return true;
  return object.tls_size() != 0 && object.image().imports("pthread_create") &&
         !object.image().imports("GOMP_parallel") && object.address_of("GOMP_parallel") &&
         !object.address_of("__kmpc_fork_call");
}

std::optional<std::string> fork_care_setting(const Process& process) {
  const std::string at_start = process.environment(kInitAtFork);
  if (at_start.empty()) return "";
  if (kmp_says_no(at_start)) return std::string(kInitAtFork) + "=TRUE ";
  return std::nullopt;
}

bool has_function(const ThreadRuntime& runtime, const std::string& function) {
  if (!runtime.linked_in) return true;
  const auto any_of = [&](std::initializer_list<const char*> prefixes) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](const char* prefix) { return starts_with(function, prefix); });
  };
  if (runtime.kind == Kind::kGnuOpenMp) return any_of({"GOMP_", "gomp_", "omp_"});
  return any_of({"blas_", "exec_blas", "gemm_driver", "goto_", "inner_", "openblas_"});
}

bool is_worker_of(const ThreadRuntime& runtime, const ThreadStack& stack) {
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
    if (frame->object == nullptr || is_c_library(*frame->object)) continue;
    return frame->object == runtime.object && has_function(runtime, frame->function);
  }
  return false;
}

const Object* started_in(const ThreadStack& stack) {
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
    if (frame->object != nullptr && !is_c_library(*frame->object)) return frame->object;
  }
  return nullptr;
}

namespace {

// Reads the state that libforksafe.so exports. False if it is not loaded.
bool read_state(const Process& process, const Objects& objects, State* state) {
  for (const auto& object : objects) {
    const auto address =
        object->defines("forksafe_state") ? object->address_of("forksafe_state") : std::nullopt;
    if (address && process.read_memory(*address, state, sizeof *state)) return true;
  }
  return false;
}

}  // namespace

bool is_forksafe(const Object& object) { return object.defines("forksafe_state"); }

Guard find_guard(const Process& process, const Objects& objects) {
  State state;
  Guard guard;
  guard.loaded =
      std::any_of(objects.begin(), objects.end(), [](const auto& o) { return is_forksafe(*o); });
  guard.enabled = read_state(process, objects, &state) && state.enabled != 0;
  return guard;
}

std::vector<ThreadRuntime> find_thread_runtimes(const Process& process, const Objects& objects,
                                                const std::vector<ThreadStack>& stacks) {
  std::vector<ThreadRuntime> result;
  std::vector<const Object*> openmps;
  for (const auto& object : objects) {
    for (const Recogniser& recogniser : kRecognisers) {
      if (!object->is(recogniser.recognise)) continue;
      ThreadRuntime runtime;
      runtime.object = object.get();
      runtime.kind = recogniser.kind;
      runtime.linked_in = is_linked_in(runtime.kind, *object, objects);
      runtime.named_by = named_by(runtime.kind, *object);
      runtime.left_alone = runtime.linked_in && is_left_alone(runtime.kind, *object);
      if (runtime.is_openmp()) openmps.push_back(object.get());
      result.push_back(runtime);
      // A program may have several runtimes linked in.
      if (!runtime.linked_in) break;
    }
  }

  const Links links(process, objects);
  State state;
  const bool guarded = read_state(process, objects, &state) && state.enabled != 0;
  for (ThreadRuntime& r : result) {
    if (r.kind == Kind::kOpenBlas) {
      r.version = openblas_version(*r.object);
      r.architecture = openblas_architecture(process, *r.object);
    } else if (r.kind == Kind::kGnuOpenMp) {
      r.version = r.object->highest_version("GOMP_");
    }
    if (!r.is_openmp()) {
      r.threading = r.kind == Kind::kMkl ? mkl_threading(objects) : threading_of(*r.object);
    }
    if (r.threading == Threading::kOpenMp) {
      const Object* user = r.object;
      for (const auto& object : objects) {
        if (r.kind == Kind::kMkl && starts_with(object->name(), "libmkl_") &&
            threading_of(*object) == Threading::kOpenMp) {
          user = object.get();
        }
      }
      r.openmp = bound_to(process, objects, *user, "GOMP_parallel");
      if (r.openmp == nullptr) r.openmp = bound_to(process, objects, *user, "__kmpc_fork_call");
      // Under forksafe the GOT slot leads to a door of libforksafe.so.
      if (std::count(openmps.begin(), openmps.end(), r.openmp) == 0) {
        r.openmp = links.needed(user, openmps);
      }
    }
    find_threads(process, &r);
    find_pool(process, &r);
    // The workers of a BLAS on OpenMP or TBB belong to that runtime.
    if (!stacks.empty() && (r.is_openmp() || r.threading == Threading::kOwn)) {
      r.workers = static_cast<int>(
          std::count_if(stacks.begin(), stacks.end(), [&](const ThreadStack& stack) {
            return stack.tid != process.pid() && is_worker_of(r, stack);
          }));
    }
    r.linked = r.linked_in ? "static" : links.how(r.object);
    r.needed_by = links.needed_by(r.object);
    if (is_kmp(r.openmp != nullptr ? *r.openmp : *r.object)) {
      r.fork_care_off = find_fork_care_off(process, objects);
    }
    find_behaviour(process, &r);

    // The library looks for GNU OpenMP and BLIS at each fork. MKL only hangs in its OpenMP.
    // OpenBLAS is adopted when it is loaded: see the modules below.
    r.guarded =
        guarded && ((r.kind == Kind::kGnuOpenMp && !r.left_alone) || r.kind == Kind::kBlis ||
                    (r.kind == Kind::kMkl && r.openmp != nullptr && r.openmp->is(is_gnu_openmp)));
    for (const State::Module& module : state.modules) {
      if (!guarded || module.base != r.object->base()) continue;
      if (r.left_alone) continue;
      r.guarded = r.fork_care_off.empty();
      r.one_thread = module.one_thread != 0;
      r.degraded_forks = static_cast<int>(module.degraded_forks);
    }
  }
  return result;
}

}  // namespace forksafe::cli

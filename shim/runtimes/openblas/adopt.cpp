// SPDX-License-Identifier: Apache-2.0
// How a copy of OpenBLAS is found: by the handler that it registers, its shutdown
// (driver/others/memory.c, blas_thread_shutdown_).
#include <cstdlib>
#include <cstring>

#include "doors/setters.h"
#include "elf/loaded_objects.h"
#include "elf/slots.h"
#include "number.h"
#include "options.h"
#include "report.h"
#include "runtimes/openblas/openmp.h"
#include "runtimes/openblas/threads.h"
#include "runtimes/runtime.h"

extern "C" int __register_atfork(void (*)(), void (*)(), void (*)(), void*);

namespace forksafe {
namespace {

// The number that an OpenBLAS that is loaded now takes from the environment
// (driver/others/openblas_env.c). The runtime of an OpenMP build reads the last one.
long threads_in_environment() {
  for (const char* name : {"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* text = getenv(name);
    const long threads = text != nullptr ? parse_number(text) : 0;
    if (threads > 0) return threads;
  }
  return 0;
}

long threads_at_start = 0;

// Finds the object that holds `prepare`, if it may be an OpenBLAS that registers its shutdown. In a
// process that came by fork, only a thread that is loading something may ask the dynamic linker.
// OpenBLAS's thread is: it registers in its constructor, just after its _init has called
// __gmon_start__.
bool find_registrant(void (*prepare)(), ElfImage* image) {
  return may_ask_linker() && find_object(reinterpret_cast<const void*>(prepare), image) &&
         !is_adopted(*image);
}

void set_by_program(int slot) {
  Module* module = &modules[slot];
  if (module->adapt == nullptr) return;
  module->adapt = nullptr;
  openblas_of(module)->program_chose = true;
}

void watch_setters(const OpenBlas* blas) {
  const ElfImage& image = blas->module->image;
  image.any_symbol([&](const char* name, const Symbol& symbol) {
    if (strstr(name, "openblas_set_num_threads") != nullptr) {
      watch_setter(image, symbol, set_by_program, blas->module->slot);
    }
    return false;
  });
}

// Adopts the copy that registers `prepare`.
bool replaces(void (*prepare)()) {
  ElfImage image;
  if (!find_registrant(prepare, &image)) return false;
  static Internals found;  // too large for a small stack; the dynamic linker's lock serialises us
  if (!read_internals(image, prepare, &found)) return false;
  if (found.cpu_number == nullptr || !pin(image)) {
    Line line;
    line.add("left as it is, ");
    line.add(found.cpu_number == nullptr ? "no symbol names its internals: "
                                         : "it can't be kept loaded: ");
    line.add(image.path());
    report(line.text());
    return false;
  }
  if (!has_room_for(image)) return false;
  OpenBlas* blas =
      found.openmp ? adopt_openmp_build(image, found) : adopt_threads_build(image, found);
  if (blas == nullptr) return false;
  if (options().child_threads == Options::kAuto) watch_setters(blas);
  // A child that has set a number in the environment before it loads the copy has made its choice.
  blas->program_chose = threads_in_environment() != threads_at_start;
  start_to_adapt(blas);
  return true;
}

// A copy that was loaded with RTLD_DEEPBIND, as Julia loads its own, would register in the C
// library and not with us. It is found before its constructor, by the names that builds give the
// function.
ElfImage loaded[kMaxModules];
int loaded_count = 0;

void see(const ElfImage& image) {
  for (const char* name : {"openblas_get_config", "openblas_get_config64_",
                           "scipy_openblas_get_config", "scipy_openblas_get_config64_"}) {
    if (image.find(name).address == nullptr) continue;
    if (loaded_count < kMaxModules) loaded[loaded_count++] = image;
    return;
  }
}

void seen_all() {
  if (loaded_count == 0) return;
  static constexpr char kName[] = "__register_atfork";
  void* const next = find_next_function(kName);
  void* const ours = reinterpret_cast<void*>(__register_atfork);
  for (int i = 0; i < loaded_count; ++i) {
    // A slot that was not bound yet seems to lead to ours.
    redirect_slots(
        loaded[i], [](const char* name) { return strcmp(name, kName) == 0 ? 0 : -1; },
        [&](int, void* behind) { return behind == next || behind == ours ? ours : nullptr; });
  }
  loaded_count = 0;
}

void start() { threads_at_start = threads_in_environment(); }

}  // namespace

const Runtime openblas = {
    "OpenBLAS", see, seen_all, nullptr, nullptr, nullptr, nullptr, nullptr, start, replaces,
};

}  // namespace forksafe

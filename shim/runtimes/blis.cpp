// SPDX-License-Identifier: Apache-2.0
// BLIS, on pthreads or OpenMP. It has no fork handling.
//
// BLIS keeps no threads of its own between calls. The OpenMP build hangs because GNU OpenMP does,
// and gnu_openmp/ has the cure for both.
//
// Both builds have static mutexes around their memory pools and settings (bli_pba.h, bli_apool.h,
// bli_gks.c, bli_rntm.c, bli_pack.c, bli_l3_ind.c in 0.8.0 to 2.1), from 1.0 on also around what is
// done once (bli_pthread.c). A child that finds one of them held waits for ever. All are held for
// microseconds, so all stand under the brief gate.
//
// BLIS registers no handler: a copy is found when it is loaded.
#include <cstring>

#include "doors/brief_mutexes.h"
#include "doors/setters.h"
#include "elf/loaded_objects.h"
#include "options.h"
#include "runtimes/copies.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

using Doors = DoorList<BriefMutexLock, BriefMutexUnlock>;

struct Copy {
  Module* module;
  void (*set_num_threads)(long);  ///< bli_thread_set_num_threads
  long (*get_num_threads)();      ///< bli_thread_get_num_threads

  // Under FORKSAFE_CHILD_THREADS=auto.
  int most_threads;   ///< what a child starts with
  int given_threads;  ///< what we have set last
};

Copies<Copy, kMaxModules> copies;

// The objects of the look under way.
ElfImage candidates[kMaxModules];
int candidate_count = 0;

// libblis exports its own names. Debian's libblas.so.3 and libblas64.so.3 of the same code hide
// them. They are recognised by the imports of BLIS's wrappers for pthreads (bli_pthread.c): no
// other BLAS under this name has all of them. A library with any other name may import them for
// itself.
bool is_blis(const ElfImage& image) {
  if (image.find("bli_info_get_version_str").address != nullptr) return true;
  const char* const name = image.soname();
  return name != nullptr && strncmp(name, "libblas", strlen("libblas")) == 0 &&
         image.imports("pthread_barrier_wait") && image.imports("pthread_mutex_trylock") &&
         image.imports("pthread_once");
}

void see(const ElfImage& image) {
  if (!is_blis(image) || is_adopted(image)) return;
  if (candidate_count < kMaxModules) candidates[candidate_count++] = image;
}

// A computation takes a mutex on its way in (bli_rntm.c, bli_pba.c). If the thread holds no other
// one, the public functions can be called: they take a mutex themselves.
int adapt(Module* module) {
  Copy* copy = static_cast<Copy*>(module->copy);
  if (*module->brief_depth() != 0 || module->adapting.exchange(1) != 0) return 0;
  const int share = thread_share();
  const int wanted = share < copy->most_threads ? share : copy->most_threads;
  if (copy->get_num_threads() != copy->given_threads) {
    module->adapt = nullptr;  // the program has set a number of its own
  } else if (wanted != copy->given_threads) {
    copy->given_threads = wanted;
    copy->set_num_threads(wanted);
  }
  module->adapting.store(0);
  return 0;
}

void set_by_program(int index) { copies[index].module->adapt = nullptr; }

void seen_all() {
  for (int i = 0; i < candidate_count; ++i) {
    const ElfImage& image = candidates[i];
    if (!image.imports("pthread_mutex_lock") || !is_its_turn(image) || !pin(image) ||
        !has_room_for(image)) {
      continue;
    }
    Copy* copy = copies.next();
    copy->set_num_threads =
        reinterpret_cast<void (*)(long)>(image.find("bli_thread_set_num_threads").address);
    copy->get_num_threads =
        reinterpret_cast<long (*)()>(image.find("bli_thread_get_num_threads").address);
    copy->module = adopt(image, "BLIS", Doors::all(), copy, true);
    if (copy->module == nullptr) continue;
    copies.add();
    if (options().child_threads == Options::kAuto) {
      watch_setter(image, image.find("bli_thread_set_num_threads"), set_by_program,
                   copies.index_of(copy));
    }
  }
  candidate_count = 0;
}

// A thread that holds one of these mutexes may need malloc to go on.
void prepare_first() {
  copies.each([](Copy* copy) {
    rest_early(copy->module, &copy->module->gates().brief, copy->module->brief_depth());
  });
}

// If the wait fails, the reset in the child is all that can be done.
void prepare_last() {
  copies.each([](Copy* copy) {
    rest_late(copy->module, &copy->module->gates().brief, copy->module->brief_depth());
  });
}

void parent() {
  copies.each([](Copy* copy) { copy->module->gates().brief.open(); });
}

void child() {
  copies.each([](Copy* copy) { reset_module_in_child(copy->module); });
}

void start_to_adapt(Copy* copy) {
  if (copy->set_num_threads == nullptr || copy->get_num_threads == nullptr) return;
  const int threads = static_cast<int>(copy->get_num_threads());
  if (threads < 1) return;  // nobody has set it: BLIS computes with one thread
  if (copy->module->adapt == nullptr && copy->most_threads == 0) {
    copy->most_threads = copy->given_threads = threads;
    copy->module->adapt = adapt;
  }
}

// This step comes after other libraries' handlers, because BLIS's functions may allocate.
void child_last() {
  const int threads = options().child_threads;
  copies.each([threads](Copy* copy) {
    if (threads == Options::kAuto) {
      if (thread_share() != 0) start_to_adapt(copy);
    } else if (threads != 0 && copy->set_num_threads != nullptr) {
      copy->set_num_threads(threads);
    }
  });
}

}  // namespace

const Runtime blis = {
    "BLIS", see, seen_all, prepare_first, prepare_last, parent, child, child_last,
};

}  // namespace forksafe

// SPDX-License-Identifier: Apache-2.0
// Doors: a module's own imports, in its own GOT, led through functions of ours.
//
// Interposing OpenBLAS's internals by name is not enough: the wheels' builds have protected or
// hidden internals, and several copies live in one process. What every build has is its imports.
// Only the adopted module's calls are seen; the rest of the process keeps calling libc directly.
//
// A runtime writes each of its doors as one struct: the name of the import, and the function that
// is called in its place. The function gets the passage first, then the arguments of the import:
//
//   struct JobStart {
//     static constexpr const char* kName = "job_start";
//     static int call(const Passage<int(Job*)>& through, Job* job) {
//       enter_calls(through.module);
//       return through(job);  // what the module would have called without us
//     }
//   };
//   using Doors = DoorList<JobStart, JobEnd>;
//
// DoorList makes a function of its own for each door and each slot of `modules`, so that a door
// knows its module without a search. adopt() puts these functions into the module's GOT.
#pragma once

#include <type_traits>
#include <utility>

#include "doors/module.h"

namespace forksafe {

/// What a door gets first: whose call it is, where it comes from and where it leads.
template <typename Function>
struct Passage;

template <typename Result, typename... Arguments>
struct Passage<Result(Arguments...)> {
  Module* module;
  const void* caller;  ///< the return address: where in the module the call is made
  Result (*behind)(Arguments...);

  Result operator()(Arguments... arguments) const { return behind(arguments...); }
};

/// The doors of one runtime, each a struct as above.
template <typename... Doors>
class DoorList {
  static_assert(sizeof...(Doors) <= DoorSet::kCapacity, "a door has its index in Module::behind");

 public:
  /// The place of `D` in the list, and in Module::behind.
  template <typename D>
  static constexpr size_t index() {
    size_t before = 0;
    bool found = false;
    ((found = found || std::is_same_v<D, Doors>, before += found ? 0 : 1), ...);
    return before;
  }

  static constexpr DoorSet all() { return DoorSet(kDoors, sizeof...(Doors)); }

  /// The function behind the door `D` of `module`; null where the module does not import it.
  template <typename D>
  static auto behind(const Module& module) {
    return behind<D>(module, &D::call);
  }

 private:
  template <typename D, typename Result, typename... Arguments>
  static auto behind(const Module& module,
                     Result (*)(const Passage<Result(Arguments...)>&, Arguments...)) {
    return reinterpret_cast<Result (*)(Arguments...)>(module.behind[index<D>()]);
  }

  // What stands in the GOT: a function of its own, whose caller is the module.
  template <typename D, int Slot, typename Result, typename... Arguments>
  __attribute__((noinline)) static Result trampoline(Arguments... arguments) {
    Module* module = &modules[Slot];
    const Passage<Result(Arguments...)> through = {module, __builtin_return_address(0),
                                                   behind<D>(*module)};
    return D::call(through, arguments...);
  }

  template <typename D, int Slot, typename Result, typename... Arguments>
  static void* trampoline_for(Result (*)(const Passage<Result(Arguments...)>&, Arguments...)) {
    return reinterpret_cast<void*>(trampoline<D, Slot, Result, Arguments...>);
  }

  template <typename D, int... Slots>
  static void* function_for(int slot, std::integer_sequence<int, Slots...>) {
    void* result = nullptr;
    ((slot == Slots ? void(result = trampoline_for<D, Slots>(&D::call)) : void()), ...);
    return result;
  }

  template <typename D>
  static void* function_for(int slot) {
    return function_for<D>(slot, std::make_integer_sequence<int, kMaxModules>());
  }

  static constexpr Door kDoors[] = {{Doors::kName, function_for<Doors>}...};
};

/// Whether one more module can be adopted. If not, the log says that `image` is left as it is. To
/// be asked before the runtime fills in its record, of which it has as many.
bool has_room_for(const ElfImage& image);

/// Puts `doors` into `image` and makes it a module, of a `kind` for the log. `copy` is the
/// runtime's own record of it, with all that the doors need. RELRO pages are opened and closed
/// again. If there is no room, or the image's GOT can't be written, nothing is changed, the log
/// says so, and the result is null. Takes no lock: a fork in another thread does not wait for it,
/// and its child has either none of the doors that matter or all that they need.
Module* adopt(const ElfImage& image, const char* kind, DoorSet doors, void* copy, bool rests_early);

/// Puts `doors` into another object, in those slots by which it calls what the module's own slots
/// led to.
bool install_doors_beside(Module* module, DoorSet doors, const ElfImage& object);

/// Waits outside of a gate that was found closed. The thread counts as inside before and after.
void wait_at_gate(Gate* gate);

/// For doors: this thread is inside the gate from here on. Calls may be nested.
inline void enter(Gate* gate, uint8_t* depth) {
  if (gate->enter(depth) || this_thread_holds() || (this_thread_rests() && !gate->held())) return;
  wait_at_gate(gate);
}
inline void enter_calls(Module* m) { enter(&m->gates().calls, m->calls_depth()); }
inline void leave_calls(Module* m) { m->gates().calls.leave(m->calls_depth()); }
inline void enter_brief(Module* m) { enter(&m->gates().brief, m->brief_depth()); }
inline void leave_brief(Module* m) { m->gates().brief.leave(m->brief_depth()); }

/// The thread is inside the gate for the life of the object.
class InCalls {
 public:
  explicit InCalls(Module* module) : module_(module) { enter_calls(module_); }
  ~InCalls() { leave_calls(module_); }
  InCalls(const InCalls&) = delete;
  InCalls& operator=(const InCalls&) = delete;

 private:
  Module* module_;
};

class InBrief {
 public:
  explicit InBrief(Module* module) : module_(module) { enter_brief(module_); }
  ~InBrief() { leave_brief(module_); }
  InBrief(const InBrief&) = delete;
  InBrief& operator=(const InBrief&) = delete;

 private:
  Module* module_;
};

/// For doors: adds `object` to `set`, a set of the module's, if it is a static variable.
inline void note(Module* module, AddressSet* set, const void* object) {
  if (!module->image.writable().contains(object)) return;
  if (!set->insert(object)) module->overflowed.store(true);
}

/// For doors that a computation passes on its way in: see Module::adapt. It is set where no other
/// thread can be inside the module, so no order is needed.
inline void adapt_threads(Module* module) {
  if (const auto adapt = module->adapt.load(std::memory_order_relaxed)) adapt(module);
}

}  // namespace forksafe

// SPDX-License-Identifier: Apache-2.0
#include "process/stacks.h"

#include <cxxabi.h>
#include <elf.h>
#include <fmt/format.h>
#include <libunwind-ptrace.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <sys/reg.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "process/core.h"
#include "process/permission.h"

// libunwind's search in .eh_frame_hdr. libunwind exports it, and perf(1) uses it too, but no header
// of libunwind declares it (1.2 to 1.8).
#define dwarf_search_unwind_table UNW_OBJ(dwarf_search_unwind_table)
extern "C" int dwarf_search_unwind_table(unw_addr_space_t space, unw_word_t ip,
                                         unw_dyn_info_t* info, unw_proc_info_t* result,
                                         int need_unwind_info, void* context);

namespace forksafe::cli {
namespace {

constexpr int kStopPatienceMs = 200;
constexpr size_t kMaxFrames = 128;

struct Seized {
  pid_t pid;      // of the process
  bool is_child;  // Target::is_child
};

// The threads that this program has seized, by their ids. Only a stopped thread can be detached. So
// a thread that does not stop in time, or that is killed while it is stopped, stays here until it
// has stopped or ended.
std::map<pid_t, Seized> seized;

// Takes the ends of seized threads from the kernel.
void reap_ended(int) {
  const int error = errno;
  for (const auto& [tid, known] : seized) {
    siginfo_t info;
    if (!known.is_child) waitid(P_PID, static_cast<id_t>(tid), &info, WEXITED | WNOHANG | __WALL);
  }
  errno = error;
}

// PTRACE_SEIZE takes a lock (cred_guard_mutex, Linux, kernel/ptrace.c) that exec holds while it
// waits for all other threads of its process to end. Of those, the ones that this program has
// seized end only when it takes their ends. So while an object of this class exists, the ends of
// seized threads interrupt seize(), and are taken by a handler. The handler runs only there, where
// nothing changes `seized`; outside of seize() the signal waits.
//
// A SIGCHLD that comes meanwhile for another reason may be lost.
class EndsWhileSeizing {
 public:
  EndsWhileSeizing() {
    const sigset_t child = only_sigchld();
    sigprocmask(SIG_BLOCK, &child, &mask_before_);
    struct sigaction reap = {};
    reap.sa_handler = reap_ended;
    reap.sa_flags = SA_RESTART | SA_NOCLDSTOP;  // for ends alone
    sigaction(SIGCHLD, &reap, &before_);
    reap_ended(0);  // their signals may have been ignored
  }
  ~EndsWhileSeizing() {
    sigaction(SIGCHLD, &before_, nullptr);
    sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  }
  EndsWhileSeizing(const EndsWhileSeizing&) = delete;
  EndsWhileSeizing& operator=(const EndsWhileSeizing&) = delete;

  static sigset_t only_sigchld() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return set;
  }

 private:
  sigset_t mask_before_;
  struct sigaction before_ = {};
};

// 0, or the errno of PTRACE_SEIZE. The kernel starts PTRACE_SEIZE again after a signal.
int seize(pid_t tid) {
  const sigset_t child = EndsWhileSeizing::only_sigchld();
  sigprocmask(SIG_UNBLOCK, &child, nullptr);
  const int error = ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) == 0 ? 0 : errno;
  sigprocmask(SIG_BLOCK, &child, nullptr);
  return error;
}

// A thread to stop. To be made before any thread of the process is stopped.
struct Target {
  Target(const Process& process, pid_t its_tid)
      : tid(its_tid),
        pid(process.pid()),
        is_ours(process.status().tracer == getpid() && seized.count(process.pid()) == 0),
        is_child(its_tid == process.pid() && process.status().parent == getpid()) {}

  pid_t tid;
  pid_t pid;
  bool is_ours;   // trace() traces the process
  bool is_child;  // the main thread of a child of this program
};

// Stops a thread by PTRACE_SEIZE and PTRACE_INTERRUPT, which send it no signal.
//
// If this program already traces the thread (trace.h), the thread stays stopped and its stop is
// left for trace() to wait for: only trace() continues that thread. Such a thread must not be
// seized: trace() may have stopped a thread whose end an exec waits for, which holds seize() up.
//
// If the thread ends meanwhile, that is taken from the kernel here. The end of a child of this
// program is left for whoever waits for the child.
class StoppedThread {
 public:
  // Asks the thread to stop.
  explicit StoppedThread(const Target& target)
      : tid_(target.tid), known_({target.pid, target.is_child}) {
    if (target.is_ours) {
      if (has_stopped()) return;
    } else if (seized.count(tid_) != 0 && interrupt()) {
      seized_ = true;
      return;
    } else {
      seized[tid_] = known_;  // before, as it may throw
      error_ = seize(tid_);
      seized_ = error_ == 0;
      if (!seized_) seized.erase(tid_);
    }
    if (error_ == 0 && !interrupt()) error_ = errno;
  }
  // A thread that was seized before.
  StoppedThread(pid_t tid, const Seized& known) : tid_(tid), known_(known), seized_(true) {}
  // Delivers the signal that arrived in the meantime.
  ~StoppedThread() {
    if (seized_ && stopped_ &&
        ptrace(PTRACE_DETACH, tid_, nullptr, reinterpret_cast<void*>(signal_)) == 0) {
      seized.erase(tid_);
    }
  }
  StoppedThread(const StoppedThread&) = delete;
  StoppedThread& operator=(const StoppedThread&) = delete;

  // Whether nothing is left to wait for: the thread has stopped, has ended or can't be stopped.
  bool is_settled() {
    if (stopped_ || error_ != 0 || has_stopped()) return true;
    siginfo_t info = {};
    const int kinds = WEXITED | WNOHANG | __WALL | (seized_ && !known_.is_child ? 0 : WNOWAIT);
    const bool waited = waitid(P_PID, static_cast<id_t>(tid_), &info, kinds) == 0;
    // The kernel also reports a stop, whatever the kinds.
    if (waited && (info.si_pid != tid_ || info.si_code == CLD_TRAPPED)) return false;
    seized.erase(tid_);  // the thread has ended
    if (!waited && seized_) follow_exec();
    seized_ = false;
    return true;
  }
  bool stopped() const { return stopped_; }
  int error() const { return error_; }  ///< why it could not be traced; 0 when it could

 private:
  bool interrupt() const { return ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr) == 0; }
  // Whoever has waited for the stop: the one who waits for a child of this program gets it too.
  bool has_stopped() {
    siginfo_t info;
    if (ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) != 0) return false;
    stopped_ = true;
    if (info.si_code >> 8 != PTRACE_EVENT_STOP) signal_ = info.si_signo;
    return true;
  }

  // A thread that has just executed a program has the main thread's id now, and is still seized.
  void follow_exec() const {
    ProcessStatus status;
    if (tid_ != known_.pid && read_status(known_.pid, &status) && status.tracer == getpid()) {
      seized.insert({known_.pid, {known_.pid, status.parent == getpid()}});
    }
  }

  pid_t tid_;
  Seized known_;
  bool seized_ = false;
  bool stopped_ = false;
  long signal_ = 0;
  int error_ = 0;
};

// Asks the threads to stop, and calls `handle(index, thread)` for each one when it has stopped. The
// thread continues after that. A thread in an uninterruptible sleep (vfork, a dead network disk)
// does not stop, and is handled when the patience ends.
template <typename Handle>
void stop_each(const std::vector<Target>& targets, Handle handle) {
  std::vector<std::unique_ptr<StoppedThread>> threads;
  threads.reserve(targets.size());
  for (const Target& t : targets) threads.push_back(std::make_unique<StoppedThread>(t));
  size_t left = threads.size();
  for (int waited_us = 0; left > 0;) {
    const bool patience_ends = waited_us >= kStopPatienceMs * 1000;
    for (size_t i = 0; i < threads.size(); ++i) {
      if (threads[i] == nullptr || !(threads[i]->is_settled() || patience_ends)) continue;
      handle(i, *threads[i]);
      threads[i].reset();
      --left;
    }
    if (left == 0) return;
    const int pause_us = waited_us < 2000 ? 20 : 1000;
    usleep(static_cast<useconds_t>(pause_us));
    waited_us += pause_us;
  }
}

#if defined(__x86_64__)
constexpr std::array<unw_regnum_t, 6> kKept = {UNW_X86_64_RBX, UNW_X86_64_RBP, UNW_X86_64_R12,
                                               UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15};
#elif defined(__aarch64__)
constexpr std::array<unw_regnum_t, 11> kKept = {UNW_AARCH64_X19, UNW_AARCH64_X20, UNW_AARCH64_X21,
                                                UNW_AARCH64_X22, UNW_AARCH64_X23, UNW_AARCH64_X24,
                                                UNW_AARCH64_X25, UNW_AARCH64_X26, UNW_AARCH64_X27,
                                                UNW_AARCH64_X28, UNW_AARCH64_X29};
#else
constexpr std::array<unw_regnum_t, 0> kKept = {};
#endif

// Accessors for libunwind that use the objects that are mapped already. libunwind's own read
// /proc/PID/maps and map a file whenever the walk enters another object, which takes seconds with
// hundreds of objects and threads.
class Unwinder {
 public:
  Unwinder(const Process& process, const Objects& objects) : process_(process), objects_(objects) {
    unw_accessors_t accessors = {};
    accessors.find_proc_info = find_proc_info;
    accessors.put_unwind_info = [](unw_addr_space_t, unw_proc_info_t*, void*) {};
    accessors.get_dyn_info_list_addr = [](unw_addr_space_t, unw_word_t*, void*) {
      return -UNW_ENOINFO;
    };
    accessors.access_mem = access_mem;
    accessors.access_reg = access_reg;
    accessors.access_fpreg = [](unw_addr_space_t space, unw_regnum_t reg, unw_fpreg_t* value,
                                int write, void* context) {
      void* thread = static_cast<Unwinder*>(context)->thread_;
      return thread != nullptr ? _UPT_access_fpreg(space, reg, value, write, thread) : -UNW_EBADREG;
    };
    accessors.resume = [](unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; };
    accessors.get_proc_name = [](unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) {
      return -UNW_ENOINFO;
    };
    space_ = unw_create_addr_space(&accessors, 0);
    if (space_ != nullptr) unw_set_caching_policy(space_, UNW_CACHE_GLOBAL);
  }
  ~Unwinder() {
    if (space_ != nullptr) unw_destroy_addr_space(space_);
  }
  Unwinder(const Unwinder&) = delete;
  Unwinder& operator=(const Unwinder&) = delete;

  // The thread is stopped, or in a core. The frames have no names yet: for a name the symbols of an
  // object are read, which takes long for a large one.
  std::vector<Frame> walk(pid_t tid, size_t max_frames = kMaxFrames) {
    blocks_.clear();
    registers_.clear();
    const Core* core = process_.core();
    if (core != nullptr) {
      in_core_ = core->thread(tid);
    } else {
      thread_ = _UPT_create(tid);
    }
    std::vector<Frame> frames;
    if (space_ != nullptr && (thread_ != nullptr || in_core_ != nullptr)) {
      frames = walk_frames(max_frames);
    }
    if (thread_ != nullptr) _UPT_destroy(thread_);
    return frames;
  }

 private:
  std::vector<Frame> walk_frames(size_t max_frames) {
    std::vector<Frame> frames;
    unw_cursor_t cursor;
    if (unw_init_remote(&cursor, space_, this) != 0) return frames;
    do {
      unw_word_t ip = 0;
      unw_word_t sp = 0;
      if (unw_get_reg(&cursor, UNW_REG_IP, &ip) != 0 || ip == 0) break;
      if (unw_get_reg(&cursor, UNW_REG_SP, &sp) != 0) break;
      if (!frames.empty() && ip == frames.back().address && sp == frames.back().stack) break;
      Frame frame;
      frame.address = ip;
      frame.stack = sp;
      frame.object = objects_.at(ip);
      for (size_t i = 0; i < std::size(kKept); ++i) {
        unw_word_t value = 0;
        unw_get_reg(&cursor, kKept[i], &value);
        frame.kept[i] = value;
      }
      frame.is_return_address = !frames.empty() && unw_is_signal_frame(&cursor) <= 0;
      frames.push_back(frame);
    } while (frames.size() < max_frames && unw_step(&cursor) > 0);
    return frames;
  }

  // The start of .eh_frame_hdr in the only encoding that linkers write (LSB 5.0, 10.6.2): relative
  // pointers of four bytes, to .eh_frame and into it.
  struct TableHeader {
    uint8_t version;
    uint8_t frame_encoding;
    uint8_t count_encoding;
    uint8_t table_encoding;
    int32_t frame;
    uint32_t count;
  };

  static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* result,
                            int need_unwind_info, void* context) {
    auto* self = static_cast<Unwinder*>(context);
    const Object* object = self->objects_.at(ip);
    if (object == nullptr) return -UNW_ENOINFO;
    const Range table = object->unwind_table();
    const auto* header =
        static_cast<const TableHeader*>(object->constant(table.begin, sizeof(TableHeader)));
    if (header == nullptr || header->version != 1 || header->count_encoding != 0x03 ||
        header->table_encoding != 0x3b) {
      return -UNW_ENOINFO;
    }
    unw_dyn_info_t info = {};
    info.start_ip = object->span().begin;
    info.end_ip = object->span().end;
    info.format = UNW_INFO_FORMAT_REMOTE_TABLE;
    info.u.rti.segbase = table.begin;
    info.u.rti.table_data = table.begin + sizeof(TableHeader);
    info.u.rti.table_len = header->count * 8UL / sizeof(unw_word_t);
    return dwarf_search_unwind_table(space, ip, &info, result, need_unwind_info, context);
  }

  static int access_reg(unw_addr_space_t space, unw_regnum_t reg, unw_word_t* value, int write,
                        void* context) {
    auto* self = static_cast<Unwinder*>(context);
    if (self->thread_ != nullptr && write == 0) {
      // libunwind asks for a register again in each frame that has not saved it.
      const auto known = self->registers_.find(reg);
      if (known != self->registers_.end()) {
        *value = known->second;
        return 0;
      }
      const int error = _UPT_access_reg(space, reg, value, write, self->thread_);
      if (error == 0) self->registers_[reg] = *value;
      return error;
    }
#if defined(__x86_64__)
    // By the numbers of DWARF, which are those of libunwind (System V ABI, AMD64, figure 3.36).
    static constexpr int kInCore[] = {RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8,
                                      R9,  R10, R11, R12, R13, R14, R15, RIP};
    if (write == 0 && reg >= 0 && reg < static_cast<int>(std::size(kInCore))) {
      *value = self->in_core_->registers[kInCore[reg]];
      return 0;
    }
#endif
    return -UNW_EBADREG;
  }

  static int access_mem(unw_addr_space_t, unw_word_t address, unw_word_t* value, int write,
                        void* context) {
    auto* self = static_cast<Unwinder*>(context);
    if (write != 0) return -UNW_EINVAL;
    if (const Object* object = self->objects_.at(address)) {
      if (const void* constant = object->constant(address, sizeof *value)) {
        memcpy(value, constant, sizeof *value);
        return 0;
      }
    }
    constexpr size_t kBlock = 4096;  // every page size is a multiple of this
    for (size_t done = 0; done < sizeof *value;) {
      const unw_word_t at = address + done;
      const unw_word_t block = at - at % kBlock;
      const size_t size = std::min<size_t>(sizeof *value - done, block + kBlock - at);
      auto [entry, is_new] = self->blocks_.try_emplace(block);
      if (is_new) {
        entry->second.resize(kBlock);
        if (!self->process_.read_memory(block, entry->second.data(), kBlock)) {
          self->blocks_.erase(entry);
          return -UNW_EINVAL;
        }
      }
      memcpy(reinterpret_cast<char*>(value) + done, entry->second.data() + (at - block), size);
      done += size;
    }
    return 0;
  }

  const Process& process_;
  const Objects& objects_;
  unw_addr_space_t space_ = nullptr;
  void* thread_ = nullptr;                 // libunwind-ptrace's, for the registers
  const Core::Thread* in_core_ = nullptr;  // the registers of a thread in a core
  // What was read of the stopped thread: its registers and its stack.
  std::unordered_map<unw_regnum_t, unw_word_t> registers_;
  std::unordered_map<unw_word_t, std::vector<char>> blocks_;
};

// The target of the call instruction before `returns_to`: directly, through the PLT or through the
// GOT of the caller. 0 if it is no such call.
#if defined(__x86_64__)
// Intel SDM: CALL, JMP.
uintptr_t target_of_call(const Process& process, const Object& caller, uintptr_t returns_to) {
  const auto relative = [&](uintptr_t at) {
    int32_t offset = 0;
    const void* bytes = caller.constant(at, sizeof offset);
    if (bytes != nullptr) memcpy(&offset, bytes, sizeof offset);
    return at + sizeof offset + static_cast<uintptr_t>(static_cast<intptr_t>(offset));
  };
  const auto pointer_at = [&](uintptr_t slot) {
    uintptr_t target = 0;
    return process.read_memory(slot, &target, sizeof target) ? target : 0;
  };
  const auto* call = static_cast<const unsigned char*>(caller.constant(returns_to - 6, 6));
  if (call == nullptr) return 0;
  if (call[0] == 0xff && call[1] == 0x15) return pointer_at(relative(returns_to - 4));
  if (call[1] != 0xe8) return 0;
  const uintptr_t target = relative(returns_to - 4);
  const auto* stub = static_cast<const unsigned char*>(caller.constant(target, 12));
  for (int i = 0; stub != nullptr && i <= 5; ++i) {  // after an endbr64 and a bnd
    if (stub[i] == 0xff && stub[i + 1] == 0x25) {
      return pointer_at(relative(target + static_cast<uintptr_t>(i) + 2));
    }
  }
  return target;
}
#elif defined(__aarch64__)
// Arm Architecture Reference Manual: BL, BTI, ADRP, LDR (immediate).
uintptr_t target_of_call(const Process& process, const Object& caller, uintptr_t returns_to) {
  const auto instruction_at = [&](uintptr_t at) {
    uint32_t code = 0;
    const void* bytes = caller.constant(at, sizeof code);
    if (bytes != nullptr) memcpy(&code, bytes, sizeof code);
    return code;
  };
  // A signed field of `bits` bits from the bit `lowest` on.
  const auto field = [](uint32_t code, int lowest, int bits) {
    return int64_t{static_cast<int32_t>(code << (32 - lowest - bits)) >> (32 - bits)};
  };
  const uint32_t call = instruction_at(returns_to - 4);
  if (call >> 26 != 0x25) return 0;
  const uintptr_t target = returns_to - 4 + static_cast<uintptr_t>(4 * field(call, 0, 26));
  const uintptr_t stub = target + (instruction_at(target) == 0xd503245f ? 4 : 0);  // bti c
  const uint32_t page = instruction_at(stub);
  const uint32_t load = instruction_at(stub + 4);
  if ((page & 0x9f00001f) != 0x90000010 || (load & 0xffc003ff) != 0xf9400211) return target;
  const int64_t pages =
      4 * field(page, 5, 19) + (page >> 29 & 3);  // of 4 kB, whatever the kernel has
  const uintptr_t slot =
      (stub & ~uintptr_t{4095}) + static_cast<uintptr_t>(4096 * pages) + 8 * (load >> 10 & 4095);
  uintptr_t bound = 0;
  return process.read_memory(slot, &bound, sizeof bound) ? bound : 0;
}
#else
uintptr_t target_of_call(const Process&, const Object&, uintptr_t) { return 0; }
#endif

std::string demangled(const std::string& name) {
  if (name.compare(0, 2, "_Z") != 0) return name;
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (text == nullptr) return name;
  std::string result = text;
  free(text);
  return result;
}

std::string general_registers(pid_t stopped_tid) {
  std::string bytes(1024, '\0');
  iovec part = {bytes.data(), bytes.size()};
  if (ptrace(PTRACE_GETREGSET, stopped_tid, NT_PRSTATUS, &part) != 0) return "";
  bytes.resize(part.iov_len);
  return bytes;
}

void name_frames(std::vector<Frame>* frames) {
  for (Frame& frame : *frames) {
    if (frame.object == nullptr) continue;
    // A return address may be just after the last instruction of the function.
    frame.function = frame.object->function_at(frame.address - (frame.is_return_address ? 1 : 0));
  }
}

// Gives names to functions that were entered by a tail call: see Frame::function.
void name_hidden(const Process& process, std::vector<Frame>* frames) {
  for (size_t i = 0; i + 1 < frames->size(); ++i) {
    Frame& frame = (*frames)[i];
    const Frame& caller = (*frames)[i + 1];
    if (!frame.function.empty() || frame.object == nullptr || caller.object == nullptr ||
        caller.object == frame.object) {
      continue;
    }
    const uintptr_t target = target_of_call(process, *caller.object, caller.address);
    if (frame.object->span().contains(target)) {
      frame.function = frame.object->function_at(target);
    }
  }
}

void finish_names(const Process& process, std::vector<Frame>* frames) {
  name_frames(frames);
  name_hidden(process, frames);
  for (Frame& frame : *frames) frame.function = demangled(frame.function);
}

// Reads the stacks of one process: first of the threads that run or are ready to run, then of those
// that wait. So a thread that has let another one go is not seen before that one is.
class Reader {
 public:
  explicit Reader(ProcessStacks* result)
      : result_(result), unwinder_(*result->process, *result->objects) {
    const Process& process = *result->process;
    for (const pid_t tid : process.threads()) {
      const ThreadState state = read_thread_state(process.pid(), tid);
      const bool waits = state.letter == 'S' || state.letter == 'T' || state.letter == 't';
      result_->stacks.push_back({tid, state.name, {}});
      if (waits) result_->stacks.back().system_call = process.system_call(tid);
      (waits ? waiting_ : busy_).emplace_back(process, tid);
    }
    busy_left_ = busy_.size();
    if (busy_left_ == 0) read_waiting();
  }

  const std::vector<Target>& busy() const { return busy_; }
  void read_busy(pid_t tid, const StoppedThread& thread) {
    read(tid, thread);
    if (--busy_left_ == 0) read_waiting();
  }

 private:
  void read_waiting() {
    for (const Target& t : waiting_) {
      if (result_->error != nullptr) return;
      stop_each({t}, [&](size_t, const StoppedThread& thread) { read(t.tid, thread); });
    }
  }

  void read(pid_t tid, const StoppedThread& thread) {
    const auto stack = std::find_if(result_->stacks.begin(), result_->stacks.end(),
                                    [&](const ThreadStack& s) { return s.tid == tid; });
    // ENOSYS: a container forbids ptrace.
    const bool is_denied = thread.error() == EPERM || thread.error() == ENOSYS;
    if (is_denied) {
      // The kernel also answers this for a thread that is just ending.
      ProcessStatus status;
      if (read_status(tid, &status) && status.state != 'Z' && status.state != 'X' &&
          read_status(result_->process->pid(), &status)) {
        result_->error = std::make_exception_ptr(NotPermitted(
            result_->process->name(), find_obstacle(read_access(status), result_->process->pid())));
      }
    }
    if (is_denied || thread.error() == ESRCH) {  // ESRCH: the thread has ended
      result_->stacks.erase(stack);
      return;
    }
    if (!thread.stopped()) return;
    stack->frames = unwinder_.walk(tid);
  }

  ProcessStacks* result_;
  Unwinder unwinder_;
  std::vector<Target> busy_;
  std::vector<Target> waiting_;
  size_t busy_left_ = 0;
};

// The CPU time of a thread, in nanoseconds.
uint64_t read_run_time(pid_t pid, pid_t tid) {
  uint64_t result = 0;
  std::ifstream(fmt::format("/proc/{}/task/{}/schedstat", pid, tid)) >> result;
  return result;
}

constexpr auto kNewFor = std::chrono::milliseconds(300);

// Whether a thread was made less than kNewFor ago.
bool is_new(pid_t tid) {
  timespec now = {};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const auto per_second = static_cast<unsigned long long>(sysconf(_SC_CLK_TCK));
  const unsigned long long ticks =
      static_cast<unsigned long long>(now.tv_sec) * per_second +
      static_cast<unsigned long long>(now.tv_nsec) * per_second / 1000000000;
  return read_start_time(tid) + per_second * kNewFor.count() / 1000 >= ticks;
}

void read_core(ProcessStacks* result) {
  Unwinder unwinder(*result->process, *result->objects);
  for (const pid_t tid : result->process->threads()) {
    result->stacks.push_back({tid, "", unwinder.walk(tid), result->process->system_call(tid)});
  }
}

}  // namespace

void read_stacks(std::vector<ProcessStacks>* all) {
  const EndsWhileSeizing ends_while_seizing;
  std::vector<std::unique_ptr<Reader>> readers;
  std::vector<Reader*> reader_of;
  std::vector<Target> targets;
  for (ProcessStacks& stacks : *all) {
    if (stacks.process->core() != nullptr) {
      read_core(&stacks);
      continue;
    }
    auto reader = std::make_unique<Reader>(&stacks);
    if (reader->busy().empty()) continue;
    for (const Target& t : reader->busy()) {
      reader_of.push_back(reader.get());
      targets.push_back(t);
    }
    readers.push_back(std::move(reader));
  }
  stop_each(targets, [&](size_t i, const StoppedThread& thread) {
    reader_of[i]->read_busy(targets[i].tid, thread);
  });
  for (ProcessStacks& stacks : *all) {
    if (stacks.error == nullptr && stacks.stacks.empty()) {
      stacks.error = std::make_exception_ptr(
          Error(fmt::format("process {}: it has just ended", stacks.process->pid())));
    }
    if (stacks.error != nullptr) stacks.stacks.clear();
    // Now that no thread is stopped any more.
    for (ThreadStack& stack : stacks.stacks) finish_names(*stacks.process, &stack.frames);
  }
}

void continue_late_threads() {
  for (auto next = seized.begin(); next != seized.end();) {
    const auto [tid, known] = *next++;  // that may erase it
    StoppedThread(tid, known).is_settled();
  }
}

void sleep_after_look(std::chrono::microseconds duration) {
  constexpr std::chrono::microseconds kStep(10000);
  const auto end = std::chrono::steady_clock::now() + duration;
  for (;;) {
    continue_late_threads();
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
        end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return;
    usleep(static_cast<useconds_t>(std::min(left, kStep).count()));
  }
}

std::vector<ThreadStack> read_stacks(const Process& process, const Objects& objects) {
  std::vector<ProcessStacks> one = {{&process, &objects, {}, nullptr}};
  read_stacks(&one);
  if (one[0].error != nullptr) std::rethrow_exception(one[0].error);
  return one[0].stacks;
}

std::vector<ThreadStack> read_settled_stacks(const Process& process, const Objects& objects) {
  const auto deadline = std::chrono::steady_clock::now() + kNewFor;
  for (;;) {
    std::vector<ThreadStack> stacks = read_stacks(process, objects);
    const bool any_is_new =
        std::any_of(stacks.begin(), stacks.end(), [&](const ThreadStack& stack) {
          return stack.tid != process.pid() && tells_nothing(stack) && is_new(stack.tid);
        });
    if (!any_is_new || std::chrono::steady_clock::now() > deadline) return stacks;
    sleep_after_look(std::chrono::milliseconds(5));
  }
}

bool tells_nothing(const ThreadStack& stack) {
  return std::all_of(stack.frames.begin(), stack.frames.end(), [](const Frame& frame) {
    return frame.object == nullptr || is_c_library(*frame.object);
  });
}

void sample_stacks(const std::vector<Sampled>& threads, const Sampling& sampling,
                   const std::function<bool(size_t, const Sample&)>& take) {
  struct Thread {
    size_t index;
    Target target;
    std::unique_ptr<Unwinder> unwinder;
    uint64_t run_time;  // at the last sample
    bool sampled;
  };
  const EndsWhileSeizing ends_while_seizing;
  std::vector<Thread> left;
  for (size_t i = 0; i < threads.size(); ++i) {
    const Sampled& t = threads[i];
    left.push_back({i, Target(*t.process, t.tid),
                    std::make_unique<Unwinder>(*t.process, *t.objects), 0, false});
  }
  const auto deadline = std::chrono::steady_clock::now() + sampling.patience;
  while (!left.empty() && std::chrono::steady_clock::now() < deadline) {
    std::vector<Target> targets;
    std::vector<size_t> ready;
    for (size_t i = 0; i < left.size(); ++i) {
      const Sampled& t = threads[left[i].index];
      const uint64_t run_time = read_run_time(t.process->pid(), t.tid);
      if (left[i].sampled && run_time < left[i].run_time + sampling.run_ns) continue;
      left[i].run_time = run_time;
      targets.push_back(left[i].target);
      ready.push_back(i);
    }
    std::set<size_t> done;
    stop_each(targets, [&](size_t i, const StoppedThread& thread) {
      Thread& t = left[ready[i]];
      t.sampled = true;
      const pid_t tid = t.target.tid;
      Sample sample;
      if (thread.stopped()) {
        sample = {t.unwinder->walk(tid, sampling.max_frames), general_registers(tid)};
        name_frames(&sample.frames);
      }
      if (!thread.stopped() || !take(t.index, sample)) done.insert(t.index);
    });
    left.erase(std::remove_if(left.begin(), left.end(),
                              [&](const Thread& t) { return done.count(t.index) != 0; }),
               left.end());
    if (!left.empty()) sleep_after_look(sampling.pause);
  }
}

}  // namespace forksafe::cli

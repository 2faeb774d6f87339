// SPDX-License-Identifier: Apache-2.0
#include "process/stacks.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <libunwind-ptrace.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <unordered_map>

#include "base/error.h"

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

// Threads that this program has seized and that did not stop in time. Only a stopped thread can be
// detached, so they stay seized until they stop at a later look, or this program ends.
std::set<pid_t> left_seized;

// Whether trace() traces the process.
bool is_traced_by_trace(const Process& process) {
  return process.status().tracer == getpid() && left_seized.count(process.pid()) == 0;
}

// Stops a thread by PTRACE_SEIZE and PTRACE_INTERRUPT, which send it no signal.
//
// If this program already traces the thread (trace.h), the thread stays stopped and its stop is
// left for trace() to wait for: only trace() continues that thread. Such a thread must not be
// seized. PTRACE_SEIZE takes a lock (cred_guard_mutex, Linux, kernel/ptrace.c) that exec holds
// while it waits for all other threads to end, and trace() may have stopped one of those.
//
// If the thread ends meanwhile, that is taken from the kernel here. The end of a child of this
// program is left for whoever waits for the child.
class StoppedThread {
 public:
  StoppedThread(const Process& process, pid_t tid) : tid_(tid) {
    const bool is_ours = is_traced_by_trace(process);
    const bool is_child = tid == process.pid() && process.status().parent == getpid();
    siginfo_t info;
    if (is_ours) {
      stopped_ = ptrace(PTRACE_GETSIGINFO, tid, nullptr, &info) == 0;
    } else {
      seized_ = left_seized.erase(tid) != 0 || ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) == 0;
      if (!seized_) error_ = errno;
    }
    if (stopped_ || error_ != 0) return;
    if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) {
      error_ = errno;
      return;
    }
    // A thread in an uninterruptible sleep (vfork, a dead network disk) does not stop.
    const int kinds = WSTOPPED | WEXITED | WNOHANG | __WALL | (seized_ && !is_child ? 0 : WNOWAIT);
    for (int waited_us = 0; waited_us < kStopPatienceMs * 1000;) {
      info = {};
      if (waitid(P_PID, static_cast<id_t>(tid), &info, kinds) != 0) return;
      if (info.si_pid == tid) {
        stopped_ = info.si_code == CLD_TRAPPED;
        if (!stopped_) seized_ = false;  // the thread has ended
        // A signal. An event of ptrace would have its number above the signal's bits.
        if (stopped_ && info.si_status >> 8 == 0) signal_ = info.si_status;
        return;
      }
      const int pause_us = waited_us < 2000 ? 20 : 1000;
      usleep(static_cast<useconds_t>(pause_us));
      waited_us += pause_us;
    }
  }
  ~StoppedThread() {
    if (!seized_) return;
    if (stopped_) {
      // Delivers the signal that arrived in the meantime.
      ptrace(PTRACE_DETACH, tid_, nullptr, reinterpret_cast<void*>(signal_));
    } else if (error_ == 0) {
      left_seized.insert(tid_);
    }
  }
  StoppedThread(const StoppedThread&) = delete;
  StoppedThread& operator=(const StoppedThread&) = delete;
  bool stopped() const { return stopped_; }
  int error() const { return error_; }  ///< why it could not be traced; 0 when it could

 private:
  pid_t tid_;
  bool seized_ = false;
  bool stopped_ = false;
  long signal_ = 0;
  int error_ = 0;
};

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
  Unwinder(const Process& process, const Objects& objects) : objects_(objects) {
    memory_ = open(fmt::format("/proc/{}/mem", process.pid()).c_str(), O_RDONLY | O_CLOEXEC);
    unw_accessors_t accessors = {};
    accessors.find_proc_info = find_proc_info;
    accessors.put_unwind_info = [](unw_addr_space_t, unw_proc_info_t*, void*) {};
    accessors.get_dyn_info_list_addr = [](unw_addr_space_t, unw_word_t*, void*) {
      return -UNW_ENOINFO;
    };
    accessors.access_mem = access_mem;
    accessors.access_reg = [](unw_addr_space_t space, unw_regnum_t reg, unw_word_t* value,
                              int write, void* self) {
      return _UPT_access_reg(space, reg, value, write, static_cast<Unwinder*>(self)->thread_);
    };
    accessors.access_fpreg = [](unw_addr_space_t space, unw_regnum_t reg, unw_fpreg_t* value,
                                int write, void* self) {
      return _UPT_access_fpreg(space, reg, value, write, static_cast<Unwinder*>(self)->thread_);
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
    if (memory_ >= 0) close(memory_);
  }
  Unwinder(const Unwinder&) = delete;
  Unwinder& operator=(const Unwinder&) = delete;

  std::vector<Frame> walk(pid_t stopped_tid, size_t max_frames = kMaxFrames) {
    std::vector<Frame> frames;
    blocks_.clear();
    thread_ = _UPT_create(stopped_tid);
    unw_cursor_t cursor;
    if (space_ == nullptr || thread_ == nullptr || unw_init_remote(&cursor, space_, this) != 0) {
      if (thread_ != nullptr) _UPT_destroy(thread_);
      return frames;
    }
    do {
      unw_word_t ip = 0;
      unw_word_t sp = 0;
      if (unw_get_reg(&cursor, UNW_REG_IP, &ip) != 0 || ip == 0) break;
      if (unw_get_reg(&cursor, UNW_REG_SP, &sp) != 0) break;
      Frame frame;
      frame.address = ip;
      frame.stack = sp;
      frame.object = objects_.at(ip);
      for (size_t i = 0; i < std::size(kKept); ++i) {
        unw_word_t value = 0;
        unw_get_reg(&cursor, kKept[i], &value);
        frame.kept[i] = value;
      }
      // A return address may be just after the last instruction of the function.
      const bool exact = frames.empty() || unw_is_signal_frame(&cursor) > 0;
      if (frame.object != nullptr) frame.function = frame.object->function_at(exact ? ip : ip - 1);
      frames.push_back(frame);
    } while (frames.size() < max_frames && unw_step(&cursor) > 0);
    _UPT_destroy(thread_);
    return frames;
  }

 private:
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
        if (pread(self->memory_, entry->second.data(), kBlock, static_cast<off_t>(block)) !=
            static_cast<ssize_t>(kBlock)) {
          self->blocks_.erase(entry);
          return -UNW_EINVAL;
        }
      }
      memcpy(reinterpret_cast<char*>(value) + done, entry->second.data() + (at - block), size);
      done += size;
    }
    return 0;
  }

  const Objects& objects_;
  unw_addr_space_t space_ = nullptr;
  void* thread_ = nullptr;  // libunwind-ptrace's, for the registers
  int memory_ = -1;
  std::unordered_map<unw_word_t, std::vector<char>> blocks_;  // of the stopped thread's stack
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

}  // namespace

std::vector<ThreadStack> read_stacks(const Process& process, const Objects& objects) {
  std::vector<ThreadStack> result;
  Unwinder unwinder(process, objects);
  for (const pid_t tid : process.threads()) {
    ThreadStack stack;
    stack.tid = tid;
    std::ifstream comm(fmt::format("/proc/{}/task/{}/comm", process.pid(), tid));
    std::getline(comm, stack.name);
    const StoppedThread thread(process, tid);
    if (thread.error() == EPERM) {
      // The kernel also answers this for a thread that is just ending.
      ProcessStatus status;
      if (!read_status(tid, &status) || status.state == 'Z' || status.state == 'X') continue;
      if (!read_status(process.pid(), &status)) break;
      throw Error(fmt::format("process {}: {}", process.name(), why_not_permitted(status)));
    }
    if (thread.error() == ESRCH) continue;  // the thread has ended
    if (thread.stopped()) stack.frames = unwinder.walk(tid);
    name_hidden(process, &stack.frames);
    for (Frame& frame : stack.frames) frame.function = demangled(frame.function);
    result.push_back(stack);
  }
  if (result.empty()) throw Error(fmt::format("process {}: it has just ended", process.pid()));
  return result;
}

void sample_stack(const Process& process, const Objects& objects, pid_t tid, size_t max_frames,
                  unsigned pause_us, const std::function<bool(const Sample&)>& take) {
  Unwinder unwinder(process, objects);
  for (bool go_on = true; go_on; usleep(pause_us)) {
    Sample sample;
    const StoppedThread thread(process, tid);
    if (!thread.stopped()) return;
    sample.frames = unwinder.walk(tid, max_frames);
    sample.registers = general_registers(tid);
    go_on = take(sample);
  }
}

}  // namespace forksafe::cli

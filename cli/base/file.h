// SPDX-License-Identifier: Apache-2.0
// A file that is read at given places.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace forksafe::cli {

class File {
 public:
  /// Does not wait if the path is a FIFO.
  explicit File(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  /// The descriptor; negative if the file could not be opened. Then all reads fail.
  int fd() const { return fd_; }

  /// Up to `size` bytes: fewer where the file ends, none if it can't be read.
  std::string read(size_t offset, size_t size) const {
    std::string bytes(size, '\0');
    const ssize_t count = pread(fd_, bytes.data(), size, static_cast<off_t>(offset));
    bytes.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return bytes;
  }

  /// Returns false unless the file has all of these objects.
  template <typename T>
  bool read(size_t offset, T* objects, size_t count = 1) const {
    const size_t size = count * sizeof(T);
    return pread(fd_, objects, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
  }

 private:
  int fd_;
};

}  // namespace forksafe::cli

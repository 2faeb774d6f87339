// SPDX-License-Identifier: Apache-2.0
// The separate file with the symbol table of a stripped object, as distributions and `objcopy
// --only-keep-debug` make it.
#pragma once

#include <string>

namespace forksafe::cli {

/// The debug file of the ELF file `file`: by its build id below /usr/lib/debug/.build-id, or by its
/// .gnu_debuglink beside it, in .debug beside it, or below /usr/lib/debug. `path` is the object's
/// path below `root`. Empty if there is no such file with the same build id.
std::string find_debug_file(const std::string& root, const std::string& path,
                            const std::string& file);

}  // namespace forksafe::cli

-- SPDX-License-Identifier: Apache-2.0
-- For Lmod. Set prefix, and install this file under two names:
--   forksafe/VERSION.lua          puts the command into PATH and its man pages into MANPATH
--   forksafe-preload/VERSION.lua  also preloads the library into all programs, see libforksafe(7)
-- `sh scripts/packages.sh modules` loads and unloads both on Debian.
local prefix = pathJoin("/opt/forksafe", myModuleVersion())
local preload = myModuleName() == "forksafe-preload"

whatis("forksafe: makes fork safe with BLAS and OpenMP thread pools")
help([[
forksafe COMMAND runs a program in which fork is safe with OpenBLAS, BLIS, MKL and OpenMP.
The module forksafe-preload does the same for all programs. See forksafe(1).
]])

prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("MANPATH", pathJoin(prefix, "share/man"))
-- The empty entry at the end stands for the system's own man pages.
append_path("MANPATH", "")
if preload then
  prepend_path("LD_PRELOAD", pathJoin(prefix, "lib/forksafe/libforksafe.so"))
  -- A value that the user has set is kept.
  local kmp = os.getenv("KMP_INIT_AT_FORK")
  if kmp == nil or kmp == "TRUE" then
    pushenv("KMP_INIT_AT_FORK", "TRUE")
  end
end

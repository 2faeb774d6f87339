#%Module
# SPDX-License-Identifier: Apache-2.0
# For environment-modules 5.1 and later. Set prefix, and install this file under two names:
#   forksafe/VERSION          puts the command into PATH and its man pages into MANPATH
#   forksafe-preload/VERSION  also preloads the library into all programs, see libforksafe(7)
# `sh scripts/packages.sh modules` loads and unloads both on Debian.
set prefix /opt/forksafe/[file tail [module-info name]]
set preload [string match "forksafe-preload/*" [module-info name]]

module-whatis "forksafe: makes fork safe with BLAS and OpenMP thread pools"
proc ModulesHelp {} {
  puts stderr "forksafe COMMAND runs a program in which fork is safe with OpenBLAS, BLIS, MKL and OpenMP."
  puts stderr "The module forksafe-preload does the same for all programs. See forksafe(1)."
}

prepend-path PATH $prefix/bin
prepend-path MANPATH $prefix/share/man
# The empty entry at the end stands for the system's own man pages.
append-path MANPATH ""
if {$preload} {
  prepend-path LD_PRELOAD $prefix/lib/forksafe/libforksafe.so
  # A value that the user has set is kept.
  if {![info exists env(KMP_INIT_AT_FORK)] || $env(KMP_INIT_AT_FORK) eq "TRUE"} {
    pushenv KMP_INIT_AT_FORK TRUE
  }
}

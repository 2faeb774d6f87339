# SPDX-License-Identifier: Apache-2.0
# future::plan(multicore) forks a child for each future, after the parent has used BLAS.
library(future)
plan(multicore, workers = 2)
source(file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))), "parent.R"))

for (i in seq_len(forks)) {
  answer <- value(future(list(Sys.getpid(), a %*% a)))
  check(answer[[1]] != Sys.getpid(), "a future was computed in the parent")
  check(identical(answer[[2]], expected), "a child's product differs")
  cat(".")
  flush(stdout())
}

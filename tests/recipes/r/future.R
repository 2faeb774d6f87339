# SPDX-License-Identifier: Apache-2.0
# future::plan(multicore) forks a child for each future, after the parent has used BLAS.
library(future)
plan(multicore, workers = 2)

forks <- as.integer(Sys.getenv("WILD_FORKS"))
set.seed(1)
a <- matrix(rnorm(400 * 400), 400)
expected <- a %*% a

# Asks run_case.py to inspect this process before it forks.
request <- file.path(Sys.getenv("WILD_FOLDER"), paste0("parent-", Sys.getpid()))
invisible(file.create(request))
while (file.exists(request)) Sys.sleep(0.01)

for (i in seq_len(forks)) {
  f <- future(list(Sys.getpid(), a %*% a))
  answer <- value(f)
  if (answer[[1]] == Sys.getpid() || !identical(answer[[2]], expected)) {
    write("a child's product differs, or is not a child's", stderr())
    quit(status = 1)
  }
  cat(".")
  flush(stdout())
}

# SPDX-License-Identifier: Apache-2.0
# What an R program does before it forks: it computes `expected` from `a`, by BLAS, and lets
# run_case.py inspect it.
forks <- as.integer(Sys.getenv("WILD_FORKS"))
check <- function(good, message) {
  if (!good) {
    write(message, stderr())
    quit(status = 1)
  }
}

set.seed(1)
a <- matrix(rnorm(400 * 400), 400)
expected <- a %*% a

request <- file.path(Sys.getenv("WILD_FOLDER"), paste0("parent-", Sys.getpid()))
invisible(file.create(request))
while (file.exists(request)) Sys.sleep(0.01)

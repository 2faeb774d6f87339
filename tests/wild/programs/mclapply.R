# SPDX-License-Identifier: Apache-2.0
# Calls parallel::mclapply after the parent has used BLAS. Each call forks two children.
library(parallel)

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

# Asks run_case.py to inspect this process before it forks.
request <- file.path(Sys.getenv("WILD_FOLDER"), paste0("parent-", Sys.getpid()))
invisible(file.create(request))
while (file.exists(request)) Sys.sleep(0.01)

for (round in seq_len(forks / 2)) {
  products <- mclapply(1:2, function(i) a %*% a, mc.cores = 2)
  check(all(sapply(products, identical, expected)), "a child's product differs")
  cat("..")
  flush(stdout())
}
check(identical(a %*% a, expected), "after the forks, the parent's product differs")

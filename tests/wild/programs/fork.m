% SPDX-License-Identifier: Apache-2.0
% Forks with Octave's fork and waitpid, after the parent has used BLAS.
a = randn(400);
expected = a * a;

% Asks run_case.py to inspect this process before it forks.
request = fullfile(getenv("WILD_FOLDER"), sprintf("parent-%d", getpid()));
fclose(fopen(request, "w"));
while exist(request, "file")
  pause(0.01);
end

for i = 1:str2double(getenv("WILD_FORKS"))
  child = fork();
  if child == 0
    exit(! isequal(a * a, expected));
  end
  [~, status] = waitpid(child);
  if status != 0
    fprintf(stderr, "a child ended with wait status %d\n", status);
    exit(1);
  end
  printf(".");
  fflush(stdout);
end
if ! isequal(a * a, expected)
  fprintf(stderr, "after the forks, the parent's product differs\n");
  exit(1);
end

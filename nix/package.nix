# SPDX-License-Identifier: MIT
{
  lib,
  stdenv,
  python3Packages,
}:

let
  inherit (python3Packages) python requiredPythonModules;

  dependencies = with python3Packages; [
    prometheus-client
    psutil
    sdnotify
    structlog
    watchdog
  ];

  checkDependencies = with python3Packages; [
    hypothesis
    markdown-it-py
    jsonschema
    pytest
    pytest-randomly
    pytest-timeout
    shtab
  ];

  # These want root, a Nix of their own, or what a builder has not: programs in /usr/bin, a root
  # directory that is root's, processes of others, files with setuid bits; or the very version of
  # shtab. The VM test is in their place.
  notInABuilder = [
    "tests/lab"
    "tests/nix"
    "tests/real"
    "tests/setup"
    "tests/test_completions.py::test_what_is_committed_is_what_make_completions_writes"
    "tests/helper/test_purge_private.py::test_a_store_that_hands_down_its_group_hinders_nothing"
    "tests/store/test_entries.py::test_a_file_of_another_mode_is_no_lock_file"
    "tests/store/test_nix_hang.py"
    "tests/host/test_linux_inside.py::test_a_process_that_may_not_be_looked_at_makes_it_unknown"
    "tests/cli/test_scan_interrupted.py::test_interrupted_while_nix_hangs_nothing_is_removed_and_nix_is_ended"
    "tests/daemon/test_loop.py::test_a_signal_during_the_first_sweep_ends_it_too"
  ];

  places = packages: toString (lib.remove python (requiredPythonModules packages));
in
python3Packages.buildPythonApplication {
  pname = "storewarden";
  inherit ((lib.importTOML ../pyproject.toml).project) version;
  pyproject = true;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../CHANGELOG.md
      ../CONTRIBUTING.md
      ../LICENSE
      ../Makefile
      ../README.md
      ../SECURITY.md
      ../benchmarks
      ../default.nix
      ../completions
      ../docs
      ../flake.nix
      ../launchd
      ../nix
      ../man
      ../pyproject.toml
      ../src
      ../systemd
      ../tests
    ];
  };

  build-system = [ python3Packages.hatchling ];

  inherit dependencies;

  # Nothing is wrapped: install.sh writes a launcher that no variable can add code to.
  dontWrapPythonPrograms = true;

  postFixup = ''
    interpreter=${python.interpreter}
    sitePackages=${python.sitePackages}
    platform=${stdenv.hostPlatform.parsed.kernel.name}
    source ${./install.sh}
    install_all ${places dependencies}
  '';

  nativeCheckInputs = checkDependencies;

  # No Mac has run the tests yet.
  doCheck = stdenv.buildPlatform.isLinux;

  # In an environment like that of the services: the tests start isolated interpreters. Libraries of
  # other versions than those it is developed with may warn of something; the names of sockets are
  # short.
  checkPhase = ''
    runHook preCheck
    make_environment "$TMPDIR/check" "$out" ${places (dependencies ++ checkDependencies)}
    "$TMPDIR/check/bin/python3" -m pytest -p no:cacheprovider --basetemp="$TMPDIR/t" -W default \
      -m "not slow" \
      ${lib.concatMapStringsSep " " (name: "--deselect=${name}") notInABuilder}
    runHook postCheck
  '';

  pythonImportsCheck = [
    "storewarden.cli"
    "storewarden.helper"
  ];

  meta = {
    description = "Finds what interrupted builds stranded in a Nix store, proves it dead, and removes it";
    license = lib.licenses.mit;
    maintainers = [ ];
    mainProgram = "storewarden";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}

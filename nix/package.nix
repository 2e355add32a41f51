# SPDX-License-Identifier: MIT
{
  lib,
  stdenv,
  python3Packages,
  testers,
  nix-update-script,
}:

let
  inherit (python3Packages) python requiredPythonModules;

  inherit (lib.importTOML ../pyproject.toml) project;

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
    pytest-timeout
    shtab
  ];

  places = packages: toString (lib.remove python (requiredPythonModules packages));
in
python3Packages.buildPythonApplication {
  pname = "storewarden";
  inherit (project) version;
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
      # Not in every copy of the sources; the documents speak of it.
      (lib.fileset.maybeMissing ../.github)
      ../action.yml
      ../benchmarks
      ../default.nix
      ../completions
      ../docs
      ../flake.nix
      ../launchd
      ../nix
      ../man
      ../pyproject.toml
      ../release
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

  nativeCheckInputs = [ python3Packages.pytestCheckHook ] ++ checkDependencies;

  # No Mac has run the tests yet.
  doCheck = stdenv.buildPlatform.isLinux;

  # The tests start isolated interpreters (-I), as the services are, and those do not see what the
  # hook's one finds by PYTHONPATH: they get an environment like that of the services. The names of
  # sockets in the tests' directories are short.
  preCheck = ''
    make_environment "$TMPDIR/check" "$out" ${places (dependencies ++ checkDependencies)}
    export STOREWARDEN_TEST_PYTHON=$TMPDIR/check/bin/python3
    appendToVar pytestFlags --basetemp="$TMPDIR/t"
  '';

  # Libraries of other versions than those it is developed with may warn of something.
  pytestFlags = [
    "-pno:cacheprovider"
    "-Wdefault"
  ];

  disabledTestMarks = [ "slow" ];

  # These want root, a Nix of their own, or what a builder has not: programs in /usr/bin, a root
  # directory that is root's, processes of others, files with setuid bits; or the very version of
  # shtab. The VM test is in their place. GitHub's files are no part of the package.
  disabledTestPaths = [
    "tests/lab"
    "tests/nix"
    "tests/real"
    "tests/setup"
    "tests/store/test_nix_hang.py"
    "tests/test_workflows.py"
  ];
  disabledTests = [
    "test_what_is_committed_is_what_make_completions_writes"
    "test_a_store_that_hands_down_its_group_hinders_nothing"
    "test_a_file_of_another_mode_is_no_lock_file"
    "test_a_process_that_may_not_be_looked_at_makes_it_unknown"
    "test_interrupted_while_nix_hangs_nothing_is_removed_and_nix_is_ended"
    "test_a_signal_during_the_first_sweep_ends_it_too"
  ];

  pythonImportsCheck = [
    "storewarden.cli"
    "storewarden.helper"
  ];

  passthru = {
    updateScript = nix-update-script { };

    tests = lib.optionalAttrs stdenv.hostPlatform.isLinux {
      vm = testers.runNixOSTest {
        imports = [ ./tests/story.nix ];
        defaults.imports = [ ./module.nix ];
      };
    };
  };

  meta = {
    description = "Finds what interrupted builds stranded in a Nix store, proves it dead, and removes it";
    license = lib.licenses.mit;
    maintainers = import ./maintainers.nix { inherit lib; };
    mainProgram = "storewarden";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  }
  # Once it is published, and has addresses.
  // lib.optionalAttrs (project ? urls) {
    homepage = project.urls.Homepage;
    changelog = project.urls.Changelog;
  };
}

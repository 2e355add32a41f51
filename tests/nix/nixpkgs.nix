# SPDX-License-Identifier: MIT
# In the place of nixpkgs, of which only the library is here: as many of its functions as nix/ calls,
# of the same arguments, with the system's own programs. What they make can really be built.
#   library       a checkout of nix-community/nixpkgs.lib
#   python        { interpreter, sitePackages } of the system
#   dependencies  a directory in which sitePackages has all that storewarden imports
#   shell         an absolute path of bash
{
  library,
  python,
  dependencies,
  shell ? "/bin/bash",
  system ? builtins.currentSystem,
}:
let
  real = import (library + "/lib");

  # The library's own wants Nix 2.18, as nixpkgs does; the rest of what is used of it does not.
  lib = if builtins ? readFileType then real else real // { inherit fileset; };

  fileset = {
    maybeMissing = path: path;
    unions = paths: paths;
    toSource =
      { root, fileset }:
      builtins.path {
        name = "source";
        path = root;
        filter =
          path: _:
          builtins.any (
            wanted: path == toString wanted || real.hasPrefix "${toString wanted}/" path
          ) fileset;
      };
  };

  run =
    name: attributes: script:
    derivation (
      {
        inherit name system;
        builder = shell;
        # The shell itself must be the last to end: Nix kills what closes its output earlier.
        args = [
          "-ec"
          "${script}\ntrue"
        ];
        PATH = "/usr/bin:/bin";
      }
      // attributes
    );

  platform = {
    inherit system;
    isLinux = lib.hasSuffix "linux" system;
    canExecute = other: other.system == system;
    parsed.kernel.name = if lib.hasSuffix "linux" system then "linux" else "darwin";
  };

  inherit ((lib.importTOML ../../pyproject.toml).tool.hatch.build.targets) wheel;

  # What pytestCheckHook does with the lists that the package has for it.
  checks =
    package:
    let
      listed = lib.escapeShellArgs (
        package.pytestFlags
        ++ lib.concatMap (
          path: if lib.hasInfix "::" path then [ "--deselect=${path}" ] else [ "--ignore-glob=${path}" ]
        ) package.disabledTestPaths
        ++ [
          "-k"
          (lib.concatMapStringsSep " and " (name: "not ${name}") package.disabledTests)
          "-m"
          (lib.concatMapStringsSep " and " (mark: "not ${mark}") package.disabledTestMarks)
        ]
      );
    in
    ''
      pytestFlags=()
      appendToVar() { pytestFlags+=("$2"); }
      export PYTHONPATH=$out/${python.sitePackages}:${dependencies}/${python.sitePackages}
      ${package.preCheck}
      ${python.interpreter} -m pytest ${listed} "''${pytestFlags[@]}"
    '';

  # Copies what the wheel has, and runs the package's own phases, in nixpkgs' order.
  buildPythonApplication =
    package:
    (run "${package.pname}-${package.version}" { inherit (package) src; } ''
      runHook() { :; }
      TMPDIR=$PWD
      cp -r "$src" source
      chmod -R u+w source
      cd source
      library=$out/${python.sitePackages}
      mkdir -p "$library"
      cp -r src/storewarden "$library"
      ${lib.concatStrings (
        lib.mapAttrsToList (from: to: ''
          mkdir -p "$(dirname "$library/${to}")"
          cp -r ${from} "$library/${to}"
        '') wheel.force-include
      )}
      ${lib.concatStrings (
        lib.mapAttrsToList (from: to: "install -D -m 644 ${from} $out/${to}\n") wheel.shared-data
      )}
      ${package.postFixup}
      ${lib.optionalString (package.withChecks or false) (checks package)}
    '')
    // {
      inherit (package)
        meta
        passthru
        pname
        version
        ;
      inherit (package.passthru) tests;
      withChecks = buildPythonApplication (package // { withChecks = true; });
    };

  of = names: lib.genAttrs names (name: "${dependencies}");

  python3Packages =
    of [
      "hatchling"
      "hypothesis"
      "import-linter"
      "jsonschema"
      "markdown-it-py"
      "mypy"
      "prometheus-client"
      "psutil"
      "pytest"
      "pytest-randomly"
      "pytest-timeout"
      "pytest-xdist"
      "pytestCheckHook"
      "pyyaml"
      "rich"
      "ruff"
      "sdnotify"
      "shtab"
      "structlog"
      "types-jsonschema"
      "types-psutil"
      "types-pyyaml"
      "watchdog"
    ]
    // {
      inherit buildPythonApplication python;
      requiredPythonModules = packages: lib.unique packages ++ [ python ];
    };

  pkgs = {
    inherit lib python3Packages;
    stdenv = {
      buildPlatform = platform;
      hostPlatform = platform;
    };
    callPackage =
      path: overrides:
      let
        function = import path;
      in
      function (builtins.intersectAttrs (lib.functionArgs function) pkgs // overrides);
    runCommandLocal = run;
    writeShellScript =
      name: text:
      run name { inherit text; } ''
        printf '#!${shell}\n%s' "$text" > "$out"
        chmod 0755 "$out"
      '';
    nix-update-script = _: [ "nix-update" ];
    mkShell = attributes: run "shell" attributes "";
    testers.runNixOSTest =
      test:
      let
        story = import (lib.head test.imports) { inherit lib; };
      in
      run story.name { script = story.testScript; } "";
    nix = run "nix" { } ''
      mkdir -p "$out/bin"
      ln -s /usr/bin/nix /usr/bin/nix-store "$out/bin"
    '';
    util-linux = "/usr";
    gnumake = "/usr";
    nixfmt-tree = run "nixfmt-tree" { } "";
    formats.toml = _: {
      type =
        let
          value = lib.types.oneOf [
            lib.types.bool
            lib.types.int
            lib.types.float
            lib.types.str
            lib.types.path
            (lib.types.attrsOf value)
            (lib.types.listOf value)
          ];
        in
        value;
      # JSON's strings, numbers and lists are TOML's as well.
      generate =
        name: settings:
        run name {
          text = lib.concatStrings (
            lib.mapAttrsToList (key: value: "${key} = ${builtins.toJSON value}\n") settings
          );
        } ''printf %s "$text" > "$out"'';
    };
  };
in
pkgs

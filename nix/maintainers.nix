# SPDX-License-Identifier: MIT
# Of the package and of both modules, as nixpkgs' lib.maintainers knows them: who publishes it puts
# themselves here.
{ lib }:
with lib.maintainers;
[
]

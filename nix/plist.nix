# SPDX-License-Identifier: MIT
# A property list's XML as a Nix value: dict, array, string, integer, true and false, as they stand
# in launchd/. Anything else is an error.
text:

let
  inherit (builtins)
    elemAt
    filter
    head
    isList
    isString
    match
    replaceStrings
    split
    tail
    ;

  flat = replaceStrings [ "\n" "\t" ] [ " " " " ] text;

  # Comments first: they may hold anything.
  uncommented = builtins.concatStringsSep "" (filter isString (split "<!--([^-]|-[^-])*-->" flat));

  body = elemAt (match ".*<plist version=\"1.0\">(.*)</plist>.*" uncommented) 0;

  # Every tag, and the text before its end tag; what stands between elements is only white space.
  tokens = map head (
    filter isList (split "(</?dict>|</?array>|<true/>|<false/>|<(key|string|integer)>[^<]*)" body)
  );

  unescape =
    replaceStrings
      [ "&lt;" "&gt;" "&quot;" "&apos;" "&amp;" ]
      [ "<" ">" "\"" "'" "&" ];

  # The value at the head of the tokens, and the tokens after it.
  value =
    all:
    let
      token = head all;
      rest = tail all;
      text = match "<(key|string|integer)>(.*)" token;
    in
    if token == "<dict>" then
      dict { } rest
    else if token == "<array>" then
      array [ ] rest
    else if token == "<true/>" || token == "<false/>" then
      {
        value = token == "<true/>";
        inherit rest;
      }
    else if text == null then
      throw "not a property list: ${token}"
    else
      {
        value = (if head text == "integer" then builtins.fromJSON else unescape) (elemAt text 1);
        inherit rest;
      };

  dict =
    found: all:
    if head all == "</dict>" then
      {
        value = found;
        rest = tail all;
      }
    else
      let
        name = value all;
        content = value name.rest;
      in
      dict (found // { ${name.value} = content.value; }) content.rest;

  array =
    found: all:
    if head all == "</array>" then
      {
        value = found;
        rest = tail all;
      }
    else
      let
        item = value all;
      in
      array (found ++ [ item.value ]) item.rest;
in
(value tokens).value

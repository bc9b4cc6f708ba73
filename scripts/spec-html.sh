#!/usr/bin/env bash
# The HTML edition of the protocol and the documents: `make spec` writes it to build/spec. Every clause has an anchor (`#2.1.3`), every link between
# pages must lead somewhere. An argument names another folder.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/spec}
command -v cmark-gfm >/dev/null || { echo "spec-html: cmark-gfm is missing (scripts/install-deps.sh test)" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
pages=(README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs/*.md spec/*.md)

style='body{max-width:60rem;margin:2rem auto;padding:0 1rem;font:16px/1.55 system-ui,sans-serif;color:#1c1f26}code,pre{font:13.5px/1.45 ui-monospace,monospace;background:#f3f4f6}
pre{padding:.8rem 1rem;overflow:auto;border-radius:6px}table{border-collapse:collapse}td,th{border:1px solid #d4d7dd;padding:.3rem .6rem;text-align:left;vertical-align:top}
a{color:#0b57d0}nav{font-size:14px;margin-bottom:2rem}img{max-width:100%}@media(prefers-color-scheme:dark){body{background:#16181d;color:#e3e5e9}code,pre{background:#22252c}a{color:#8ab4f8}}'

nav() { # back to the top from this depth
  local page name
  for page in "${pages[@]}"; do name=$(basename "${page%.md}"); printf '<a href="%s%s">%s</a> · ' "$1" "${page%.md}.html" "$name"; done
}

for page in "${pages[@]}"; do
  target=$out/${page%.md}.html
  mkdir -p "$(dirname "$target")"
  up=$(dirname "$page" | sed -E 's#[^./]+#..#g; s#^\.$##; s#(.+)#\1/#')
  title=$(sed -n 's/^# //p' "$page" | head -n 1)
  {
    printf '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%s</title><style>%s</style>\n' "$title" "$style"
    printf '<nav>%s</nav>\n' "$(nav "$up")"
    # Headings have the anchors that GitHub gives them, paragraphs `2.1.3 …` their number; links to pages lead to their HTML.
    cmark-gfm -e table -e autolink "$page" | perl -pe '
      s{<(h[1-6])>(.*?)</h}{my ($h, $t) = ($1, $2); (my $id = lc $t) =~ s/<[^>]*>//g; $id =~ s/&[a-z]+;//g; $id =~ s/[^a-z0-9 _-]//g; $id =~ s/ /-/g; "<$h id=\"$id\">$t</h"}e;
      s{<p>([0-9]+(\.[0-9]+)+) }{<p id="$1"><a href="#$1">$1</a> };
      s{href="([^":]+)\.md(#[^"]*)?"}{"href=\"$1.html" . ($2 // "") . "\""}ge'
    echo '</html>'
  } >"$target"
done
for picture in docs/*.svg; do [ ! -e "$picture" ] || cp "$picture" "$out/docs/"; done

status=0
while IFS=: read -r file link; do
  path=${link%%#*} anchor=""
  case $link in *'#'*) anchor=${link#*#} ;; esac
  there=$file
  [ -z "$path" ] || there=$(dirname "$file")/$path
  if [ ! -e "$there" ] && [ ! -e "$(dirname "${file#"$out"/}")/$path" ]; then
    echo "spec-html: ${file#"$out"/}: nothing is at $link" >&2
    status=1
  elif [ -n "$anchor" ] && [ -e "$there" ] && ! grep -q "id=\"$anchor\"" "$there"; then
    echo "spec-html: ${file#"$out"/}: $link has no such place" >&2
    status=1
  fi
done < <(grep -roE '(href|src)="[^":]+"' "$out" --include='*.html' | sed -E 's/(href|src)="//; s/"$//')
[ $status -eq 0 ] && echo "$out/spec/amp.html"
exit $status

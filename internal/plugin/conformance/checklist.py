"""Judges the sources of an extension or a CLI plugin by the checklists of its guide.

It reads texts and runs nothing of them. Input and output are JSON, on standard
input and output; conformance/checklist.go says what is in them.
"""

import ast
import json
import re
import sys

try:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, ValueError, OSError):
    pass  # not this system; the caller ends what takes too long

PASS, FAIL, SKIP = "pass", "fail", "skipped"
LATER = "needs the host's support for role %s"
MUTATORS = {"append", "add", "update", "setdefault", "insert", "extend", "pop", "popitem", "clear", "remove", "discard", "appendleft"}
CONTAINERS = {"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter"}
HARMLESS = {"compile", "getLogger", "TypeVar", "frozenset", "tuple", "namedtuple", "NewType", "option", "argument", "Choice", "Path"} | CONTAINERS


def constant(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def called(node):
    """The last name of what a call calls."""
    f = node.func
    return f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""


def keyword(call, name):
    return next((k.value for k in call.keywords if k.arg == name), None)


def functions(node):
    return [n for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def method(cls, name):
    return next((n for n in cls.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name == name), None)


def attribute(cls, name):
    """A text that a class gives as an attribute, or as a property that returns it."""
    for n in cls.body:
        if isinstance(n, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in n.targets):
            return constant(n.value)
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and n.target.id == name and n.value:
            return constant(n.value)
    f = method(cls, name)
    if f is None:
        return None
    returned = [n for n in ast.walk(f) if isinstance(n, ast.Return)]
    return constant(returned[0].value) if len(returned) == 1 and returned[0].value else None


def doc(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def trivial(f):
    """A function that does nothing."""
    return all(doc(n) or isinstance(n, ast.Pass) or isinstance(n, ast.Return) and n.value is None for n in f.body)


def top_level(tree):
    """The statements that run when a module is imported."""
    for n in tree.body:
        yield n
        if isinstance(n, (ast.If, ast.Try)):
            yield from top_level(n)
            for more in [n.orelse] + [h.body for h in getattr(n, "handlers", [])] + [getattr(n, "finalbody", [])]:
                yield from more


class Subject:
    """One entry point: its class, and the trees of the package that it is in."""

    def __init__(self, given):
        self.key, self.trees, self.problem = given["key"], {}, ""
        for path, text in sorted(given["files"].items()):
            try:
                self.trees[path] = ast.parse(text, path)
            except (SyntaxError, ValueError, MemoryError, RecursionError) as e:
                self.problem = "%s is no Python: line %s" % (path, getattr(e, "lineno", "?"))
        main = self.trees.get(given["file"])
        found = [n for n in ast.walk(main) if isinstance(n, ast.ClassDef) and n.name == given["class"]] if main else []
        self.module, self.cls = main, found[0] if found else None
        if not self.problem and self.cls is None:
            self.problem = "the entry point %s names class %s, which %s does not have" % (self.key, given["class"], given["file"] or "the package")
        self.name = attribute(self.cls, "name") if self.cls else None

    def walk(self):
        for path, tree in self.trees.items():
            for n in ast.walk(tree):
                yield path, n


def unnamed(s):
    return SKIP, "name is no constant text in class %s: it can be judged only where it runs" % s.cls.name


def short_names(name):
    """How a name may be written in a table or a path."""
    return {name, name.replace("_", ""), name.replace("_", "-")}


# Extensions.


def ext_name(s, others):
    if s.name is None:
        return unnamed(s)
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", s.name):
        return FAIL, "name %r is not snake_case" % s.name
    if sum(o.name == s.name for o in others) > 1:
        return FAIL, "two extensions of the package are named %r" % s.name
    return PASS, "%r; the host compares it with those that are installed" % s.name


def tables(s):
    for path, n in s.walk():
        if not isinstance(n, ast.ClassDef):
            continue
        marked = any(k.arg == "table" and isinstance(k.value, ast.Constant) and k.value.value is True for k in n.keywords)
        named = any(isinstance(t, ast.Name) and t.id == "__tablename__" for b in n.body if isinstance(b, ast.Assign) for t in b.targets)
        if marked or named:
            yield path, n, attribute(n, "__tablename__")


def ext_tables(s, _):
    if s.name is None:
        return unnamed(s)
    count = 0
    for path, cls, table in tables(s):
        count += 1
        if table is None:
            return FAIL, "%s line %d: class %s needs a constant __tablename__" % (path, cls.lineno, cls.name)
        if not any(table.startswith("extension_%s_" % n) for n in short_names(s.name)):
            return FAIL, "%s line %d: table %r does not begin with extension_%s_" % (path, cls.lineno, table, s.name)
    return PASS, "%d tables" % count


def ext_models(s, _):
    want = {cls.name for _, cls, _ in tables(s)}
    f = method(s.cls, "get_models")
    if f is None:
        return (FAIL, "there is no get_models") if want else (PASS, "no tables")
    returned = [n.value for n in ast.walk(f) if isinstance(n, ast.Return)]
    if len(returned) != 1 or not isinstance(returned[0], (ast.List, ast.Tuple)):
        return SKIP, "get_models does not return one plain list: it can be judged only where it runs"
    have = {n.id for n in returned[0].elts if isinstance(n, ast.Name)}
    missing = sorted(want - have)
    return (FAIL, "get_models lacks %s" % ", ".join(missing)) if missing else (PASS, "%d models" % len(have))


def ext_router(s, others):
    if s.name is None:
        return unnamed(s)
    f = method(s.cls, "get_router")
    if f is None:
        return FAIL, "there is no get_router; return None where there are no routes"
    returned = [n.value for n in ast.walk(f) if isinstance(n, ast.Return)]
    if all(r is None or isinstance(r, ast.Constant) and r.value is None for r in returned):
        return PASS, "no routes"
    prefixes = [constant(keyword(n, "prefix") or ast.Pass()) for n in ast.walk(f) if isinstance(n, ast.Call) and called(n) == "APIRouter"]
    if not prefixes or None in prefixes:
        return SKIP, "the prefix is no constant in get_router: it can be judged only where it runs"
    for p in prefixes:
        if not any(p == "/api/v1/" + n or p.startswith("/api/v1/%s/" % n) for n in short_names(s.name)):
            return FAIL, "prefix %r is not below /api/v1/%s" % (p, s.name)
    s.prefixes = set(prefixes)
    if any(o is not s and getattr(o, "prefixes", set()) & s.prefixes for o in others):
        return FAIL, "two extensions of the package have the same prefix"
    return PASS, ", ".join(sorted(s.prefixes))


def ext_stateless(s, _):
    for path, tree in s.trees.items():
        kept = {
            t.id
            for n in top_level(tree)
            if isinstance(n, ast.Assign)
            and (isinstance(n.value, (ast.Dict, ast.List, ast.Set)) or isinstance(n.value, ast.Call) and called(n.value) in CONTAINERS)
            for t in n.targets
            if isinstance(t, ast.Name)
        }
        for f in functions(tree):
            for n in ast.walk(f):
                if isinstance(n, ast.Global):
                    return FAIL, "%s line %d: a global variable is changed" % (path, n.lineno)
                if isinstance(n, ast.Subscript) and isinstance(n.ctx, (ast.Store, ast.Del)) and isinstance(n.value, ast.Name) and n.value.id in kept:
                    return FAIL, "%s line %d: %s keeps state in the process" % (path, n.lineno, n.value.id)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in MUTATORS:
                    if isinstance(n.func.value, ast.Name) and n.func.value.id in kept:
                        return FAIL, "%s line %d: %s keeps state in the process" % (path, n.lineno, n.func.value.id)
    for f in functions(s.cls):
        for n in ast.walk(f):
            if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and isinstance(n.value, ast.Name) and n.value.id == "self" and f.name != "__init__":
                return FAIL, "line %d: self.%s keeps state in the process" % (n.lineno, n.attr)
    return PASS, "no state is seen in module variables or attributes"


def ext_idempotent(s, _):
    busy = [n for n in ("on_startup", "on_shutdown") if method(s.cls, n) and not trivial(method(s.cls, n))]
    if busy:
        return SKIP, (LATER % "extension") + ": it calls %s twice" % " and ".join(busy)
    return PASS, "both do nothing"


# CLI plugins.


def cli_name(s, _):
    if s.name is None:
        return unnamed(s)
    if s.name != s.key:
        return FAIL, "name %r is not the key of the entry point, %r" % (s.name, s.key)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", s.name):
        return FAIL, "name %r is not kebab-case" % s.name
    return PASS, "%r" % s.name


def cli_quiet(s, _):
    for path, tree in s.trees.items():
        for n in top_level(tree):
            if isinstance(n, (ast.For, ast.While, ast.With)) or isinstance(n, ast.Expr) and not doc(n):
                return FAIL, "%s line %d: something runs when the module is imported" % (path, n.lineno)
            if isinstance(n, (ast.Assign, ast.AnnAssign)):
                for c in ast.walk(n):
                    if isinstance(c, ast.Call) and called(c) not in HARMLESS:
                        return FAIL, "%s line %d: %s() runs when the module is imported" % (path, c.lineno, called(c))
    f = method(s.cls, "register")
    if f is None:
        return FAIL, "class %s has no register" % s.cls.name
    for n in f.body:
        attaches = isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and called(n.value) == "add_command"
        defines = isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass, ast.Return))
        if not (attaches or defines or doc(n)):
            return FAIL, "line %d: register does more than attach commands" % n.lineno
    return PASS, "register attaches commands and does nothing else"


def cli_lazy(s, _):
    for path, tree in s.trees.items():
        for n in top_level(tree):
            names = []
            if isinstance(n, ast.ImportFrom):
                names = [a.name for a in n.names] + ["module " + (n.module or "")]
            elif isinstance(n, ast.Import):
                names = ["module " + a.name for a in n.names]
            for name in names:
                if name in ("AttestationClient", "get_token") or name == "module cli" or name.startswith("module cli."):
                    return FAIL, "%s line %d: %s is imported with the module; import it in the function of the command" % (path, n.lineno, name)
    return PASS, "nothing of the CLI is imported with the module"


def options(f, shared):
    """The options of a command; decorators that a module has under a name count too."""
    for d in f.decorator_list:
        d = shared.get(d.id, d) if isinstance(d, ast.Name) else d
        if isinstance(d, ast.Call) and called(d) == "option":
            env = keyword(d, "envvar")
            names = [constant(e) for e in env.elts] if isinstance(env, (ast.List, ast.Tuple)) else [constant(env)] if env else []
            for a in d.args:
                yield constant(a), names


def cli_options(s, _):
    count = 0
    for path, tree in s.trees.items():
        shared = {t.id: n.value for n in top_level(tree) if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        for f in functions(tree):
            if not any(isinstance(d, ast.Call) and called(d) == "command" or isinstance(d, ast.Attribute) and d.attr == "command" for d in f.decorator_list):
                continue
            count += 1
            have = dict(options(f, shared))
            if "ATTESTATION_API_URL" not in have.get("--url", []):
                return FAIL, "%s line %d: %s has no option --url with the variable ATTESTATION_API_URL" % (path, f.lineno, f.name)
            asks = any(isinstance(n, ast.Call) and called(n) == "get_token" for n in ast.walk(f))
            if "--token" not in have and not asks:
                return FAIL, "%s line %d: %s has neither an option --token nor get_token()" % (path, f.lineno, f.name)
    return (PASS, "%d commands" % count) if count else (SKIP, "no command is seen in the sources: it can be judged only where it runs")


def cli_discovery(_s, _):
    return SKIP, LATER % "cli"


CHECKS = {
    "extension": [ext_name, ext_tables, ext_models, ext_router, ext_stateless, ext_idempotent],
    "cli": [cli_name, cli_quiet, cli_lazy, cli_options, cli_discovery],
}


def worst(results):
    """One result for several entry points: the first that fails, else the first that could not be judged."""
    for wanted in (FAIL, SKIP):
        for result, reason in results:
            if result == wanted:
                return result, reason
    return PASS, "; ".join(reason for _, reason in results)


def main():
    answer = {}
    for role, given in json.load(sys.stdin).items():
        subjects = [Subject(g) for g in given]
        for number, check in enumerate(CHECKS[role], 1):
            results = [(FAIL, s.problem) if s.problem else check(s, subjects) for s in subjects]
            result, reason = worst(results)
            answer["%s/%d" % (role, number)] = {"result": result, "reason": reason}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

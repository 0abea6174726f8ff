"""XMP packets that say what a work may be used for."""

HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/">'
)
TAIL = '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'


def address(code: str) -> str:
    return f"http://ns.useplus.org/ldf/vocab/DMI-{code}"


def xmp(code: str, form: str = "attribute") -> bytes:
    inside = {
        "attribute": f'<rdf:Description rdf:about="" plus:DataMining="{address(code)}"/>',
        "text": f"<rdf:Description><plus:DataMining>{address(code)}</plus:DataMining></rdf:Description>",
        "resource": f'<rdf:Description><plus:DataMining rdf:resource="{address(code)}"/></rdf:Description>',
    }[form]
    return (HEAD + inside + TAIL).encode()

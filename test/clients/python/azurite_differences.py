"""Where Azurite and Castellan differ, which of them does as Azure's documentation of the REST API has it, and why.

at is a pattern for "REQUEST | FIELD: CASTELLAN / AZURITE"; right is castellan, azurite or, where the
documentation leaves it open, either.
"""


def d(at, right, why):
    return {"at": at, "right": right, "why": why}


DIFFERENCES = [
    # Headers.
    d(r".* \| cache-control: no-store / None", "either", "nothing but a blob's own Cache-Control lets a cache keep an answer of Castellan"),
    d(r".* \| x-ms-request-server-encrypted: true / None", "either", "Castellan says so of every write, the documentation of some"),
    d(r".* \| x-ms-access-tier(-inferred)?: \w+ / None", "either", "Get Blob Properties has the tier; Castellan shows it with Get Blob too"),
    d(r".* \| x-ms-access-tier-inferred: None / false", "castellan", "Get Blob Properties: the header is there only for a tier that nobody set"),
    d(r".* \| x-ms-blob-content-md5: None / .*", "castellan", "Get Blob: this header is for ranges; of a whole blob Content-MD5 has the sum"),
    d(r"(blocks|appends): .* \| content-md5: None / .*", "castellan", "Put Block List: no sum of the blob is kept unless the client gives one; Append Block neither"),
    d(r"(blocks: put|pages: (write|last|at most)).* \| content-md5: .* / None", "castellan", "Put Block and Put Page: Content-MD5 of what came is returned"),
    d(r"pages: get \| content-md5: None / .*", "castellan", "Get Blob: a page blob has a sum only if a client set one"),
    d(r".* \| x-ms-blob-sealed: None / false", "either", "Append Blob Seal: the header is optional"),
    d(r"(pages|copies): (get|head) \| accept-ranges: bytes / None", "castellan", "Get Blob: Accept-Ranges is in every answer"),
    d(r"blocks: list .*, before \| x-ms-blob-content-length: None / 0", "either", "there is no blob yet that could have a length"),
    d(r"containers: .* \| x-ms-(default-encryption-scope|deny-encryption-scope-override): .* / None", "castellan", "Get Container Properties has both since 2019-07-07"),
    # Lists.
    d(r".*/EnumerationResults/(Marker|MaxResults|Prefix): None / .*", "castellan", "List Blobs: these elements are there only if the request had the parameter"),
    d(r".*/AccessTierChangeTime: None / .*", "castellan", "List Blobs: it is there only for a tier that was set"),
    d(r".*/Properties/(Cache-Control|Content-CRC64|Content-Disposition|Content-Encoding|Content-Language): .* / None", "castellan", "List Blobs: the elements are there, empty"),
    d(r"past: list \| .*/Metadata: .* / None", "castellan", "List Blobs: with include=metadata the element is there, empty"),
    d(r"containers: list.* \| .*/(DefaultEncryptionScope|DenyEncryptionScopeOverride): .* / None", "castellan", "List Containers has both since 2019-07-07"),
    d(r"blocks: list .*, before \| .*/UncommittedBlocks/Block/(Name|Size): .*", "castellan", "Azurite has kept a block of no bytes; Put Block refuses it"),
    d(r"blocks: list (un)?committed, before \| body/BlockList/(Unc|C)ommittedBlocks: None / .*", "castellan", "Get Block List: only the list that was asked for"),
    # Codes.
    d(r".* \| x-ms-error-code: (MissingRequiredHeader|InvalidHeaderValue|InvalidQueryParameterValue|InvalidXmlDocument|InvalidXmlNodeValue|OutOfRangeQueryParameterValue|UnsupportedQueryParameter) / None", "castellan", "every error has a code; Azurite's own checks of parameters give none"),
    d(r".* \| x-ms-error-code: (Md5Mismatch|InvalidMd5|InvalidHeaderValue) / InvalidOperation", "castellan", "the error codes of Blob Storage name the cause"),
    d(r"pages: .* \| x-ms-error-code: InvalidPageRange / Requested Range Not Satisfiable", "castellan", "the error codes of Blob Storage"),
    d(r"blocks: no base64 \| x-ms-error-code: InvalidBlockId / InvalidQueryParameterValue", "castellan", "the error codes of Blob Storage"),
    d(r"tags: (eleven|odd) \| x-ms-error-code: InvalidTag / (TagsTooLarge|DuplicateTagNames)", "either", "both are 400; Azurite's second is of the tags that it took before"),
    d(r"tiers: set P10 \| x-ms-error-code: InvalidHeaderValue / AccessTierNotSupportedForBlobType", "either", "a tier of premium page blobs, of which there are none in Castellan"),
    d(r"copies: no url \| x-ms-error-code: CannotVerifyCopySource / InvalidHeaderValue", "either", "both are 400"),
    d(r"copies: abort \| x-ms-error-code: NoPendingCopyOperation / CopyIdMismatch", "castellan", "Abort Copy Blob: 409 NoPendingCopyOperation when the copy is over"),
    d(r"leases: .* broken right \| x-ms-error-code: LeaseLost / LeaseNotPresentWithBlobOperation", "castellan", "Lease Blob: use of a lease that was broken, by its id, is LeaseLost"),
    # Conditions.
    d(r"conditions: (GET|HEAD)  \w+ If-None-Match \* \| .*", "either", "a read that wants nothing there: 304 by RFC 9110, 404 if there is nothing; Azurite has 400"),
    d(r"conditions: (PUT metadata|PUT properties|DELETE ) there If-None-Match \* \| .*", "castellan", "conditional headers: the operation fails if the blob exists"),
    d(r"conditions: .* absent If-Match .* \| .*", "either", "that there is no blob is said before that it is not the one wanted, except of Put Blob; which Azurite lets through for *"),
    # Ranges.
    d(r"ranges: (ten bytes=10-|ten bytes=10-20|empty bytes=0-0) \| .*", "castellan", "Get Blob: a range that begins behind the end is 416 InvalidRange; Azurite sends 206 of nothing"),
    d(r"ranges: \w+ (bytes=5-2|bytes=-3|bytes=a-b|0-3|bytes=0-1,3-4) \| .*", "castellan", "the Range header: bytes=FROM- and bytes=FROM-TO are all there is; Azurite sends all, or a length that is no number"),
    # What Azurite lets through.
    d(r"puts: bad tags \| .*", "castellan", "Put Blob: the keys of tags must be different"),
    d(r"puts: too long a name \| .*", "castellan", "a blob's name has at most 1,024 characters"),
    d(r"blocks: empty \| .*", "castellan", "Put Block: a block has bytes"),
    d(r"tags: (twice|eleven, get|odd, get|twice, get) \| .*", "castellan", "Set Blob Tags: the keys of tags must be different"),
    d(r"past: bad time \| .*", "castellan", "a snapshot is named by a time; what is none is refused, not looked for"),
    d(r"containers: acl of an odd time \| .*", "castellan", "Set Container ACL: the start of a policy is a time"),
    d(r"service: bad cors \| .*", "castellan", "Set Blob Service Properties: the methods are named there"),
    # What an account is.
    d(r"service: properties( after)? \| .*", "either", "the emulator's defaults, and what it let through before"),
    d(r"service: account \| x-ms-sku-name: .*", "either", "what kind of account it is"),
]

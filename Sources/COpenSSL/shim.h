#pragma once
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>

// Swift cannot call macros or variadic functions; each of these wraps one.

static inline int co_ctx_set_min_version(SSL_CTX *ctx, int version) { return (int)SSL_CTX_set_min_proto_version(ctx, version); }

// Partial writes stop after each record; a retried write may come from another buffer; idle connections give their 34 KB back. Sessions
// are never resumed: a link lives for days, and a resumed one would skip the check of the certificate. Without read-ahead.
static inline void co_ctx_set_defaults(SSL_CTX *ctx) {
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_num_tickets(ctx, 0);
}

static inline int co_set_server_name(SSL *ssl, const char *name) { return (int)SSL_set_tlsext_host_name(ssl, name); }
static inline void co_set_watch(SSL *ssl, void *watch) {
    SSL_set_app_data(ssl, watch);
    SSL_set_msg_callback_arg(ssl, watch);
}
static inline void *co_get_watch(SSL *ssl) { return SSL_get_app_data(ssl); }

// An empty memory BIO means "come again", not the end: the end of the connection is the channel's business.
static inline BIO *co_new_memory_bio(void) {
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio) BIO_set_mem_eof_return(bio, -1);
    return bio;
}
static inline long co_bio_bytes(BIO *bio, char **bytes) { return BIO_get_mem_data(bio, bytes); }

// Received bytes, read where they lie: `bytes` points at what is left of them, and there is none between two calls.
struct co_span {
    const unsigned char *bytes;
    size_t count;
};

static inline int co_span_read(BIO *bio, char *target, size_t room, size_t *taken) {
    struct co_span *span = (struct co_span *)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (span->count == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t count = span->count < room ? span->count : room;
    memcpy(target, span->bytes, count);
    span->bytes += count;
    span->count -= count;
    *taken = count;
    return 1;
}
static inline long co_span_ctrl(BIO *bio, int command, long number, void *pointer) {
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_PENDING ? (long)((struct co_span *)BIO_get_data(bio))->count : command == BIO_CTRL_FLUSH;
}
// Made once and kept for the life of the process; nil without memory.
static inline BIO_METHOD *co_new_span_method(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "received bytes");
    if (method && BIO_meth_set_read_ex(method, co_span_read) == 1 && BIO_meth_set_ctrl(method, co_span_ctrl) == 1) return method;
    BIO_meth_free(method);
    return NULL;
}
static inline BIO *co_new_span_bio(const BIO_METHOD *method, struct co_span *span) {
    BIO *bio = BIO_new(method);
    if (!bio) return NULL;
    BIO_set_data(bio, span);
    BIO_set_init(bio, 1);
    return bio;
}

static inline int co_error_is_ssl(unsigned long code) { return ERR_GET_LIB(code) == ERR_LIB_SSL; }
static inline int co_error_reason(unsigned long code) { return ERR_GET_REASON(code); }

static inline EVP_PKEY *co_new_p256_key(void) { return EVP_EC_gen("P-256"); }

static inline int co_names_count(const GENERAL_NAMES *names) { return sk_GENERAL_NAME_num(names); }
static inline const GENERAL_NAME *co_names_get(const GENERAL_NAMES *names, int index) { return sk_GENERAL_NAME_value(names, index); }
static inline int co_name_is_uri(const GENERAL_NAME *name) { return name->type == GEN_URI; }
static inline const ASN1_STRING *co_name_uri(const GENERAL_NAME *name) { return name->d.uniformResourceIdentifier; }

// Appends a URI (GEN_URI) or DNS name (GEN_DNS) as bytes, whatever they are.
static inline int co_names_add_text(GENERAL_NAMES *names, int type, const unsigned char *bytes, int count) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    if (!name || !text || !ASN1_STRING_set(text, bytes, count)) {
        GENERAL_NAME_free(name);
        ASN1_IA5STRING_free(text);
        return 0;
    }
    GENERAL_NAME_set0_value(name, type, text);
    if (sk_GENERAL_NAME_push(names, name) > 0) return 1;
    GENERAL_NAME_free(name);
    return 0;
}

// Appends an IPv4 or IPv6 address given as text; 0 when it is none.
static inline int co_names_add_address(GENERAL_NAMES *names, const char *address) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_OCTET_STRING *bytes = a2i_IPADDRESS(address);
    if (!name || !bytes) {
        GENERAL_NAME_free(name);
        ASN1_OCTET_STRING_free(bytes);
        return 0;
    }
    GENERAL_NAME_set0_value(name, GEN_IPADD, bytes);
    if (sk_GENERAL_NAME_push(names, name) > 0) return 1;
    GENERAL_NAME_free(name);
    return 0;
}

// Adds an extension in OpenSSL's configuration language; `value` is one of our constants, never a name from outside.
static inline int co_add_extension(X509 *certificate, X509 *issuer, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    if (!extension) return 0;
    int added = X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return added;
}

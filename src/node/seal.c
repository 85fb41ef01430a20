/* seal.c: the cluster key over gossip: AES-256-GCM (OpenSSL), with a random nonce of 96 bits per frame: at a
 * thousand frames a second one key lasts for decades before two nonces are likely to meet.
 *
 *      box: nonce 12 | as many bytes as sealed | tag 16 */
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "node/node.h"

#define NONCE_LEN 12
#define TAG_LEN   16

static bool seal(void *ctx, cake_slice_t plain, uint8_t *out)
{
    const cake__node_keys_t *keys = ctx;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    int len = 0, rest = 0;
    keys->env->ops->random(keys->env, out, NONCE_LEN);
    bool is_done = cipher != NULL && EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, keys->keys[0], out) == 1 &&
                   EVP_EncryptUpdate(cipher, out + NONCE_LEN, &len, plain.data, (int)plain.len) == 1 &&
                   EVP_EncryptFinal_ex(cipher, out + NONCE_LEN + len, &rest) == 1 &&
                   EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_LEN, out + NONCE_LEN + plain.len) == 1;
    EVP_CIPHER_CTX_free(cipher);
    return is_done;
}

static bool open_with(EVP_CIPHER_CTX *cipher, const uint8_t *key, cake_slice_t box, uint8_t *out)
{
    const uint8_t *bytes = box.data;
    size_t sealed = box.len - NONCE_LEN - TAG_LEN;
    uint8_t tag[TAG_LEN];
    int len = 0, rest = 0;
    memcpy(tag, bytes + NONCE_LEN + sealed, TAG_LEN);
    return EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, bytes) == 1 &&
           EVP_DecryptUpdate(cipher, out, &len, bytes + NONCE_LEN, (int)sealed) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1 &&
           EVP_DecryptFinal_ex(cipher, out + len, &rest) == 1;
}

static bool open_box(void *ctx, cake_slice_t box, uint8_t *out)
{
    const cake__node_keys_t *keys = ctx;
    EVP_CIPHER_CTX *cipher = box.len < NONCE_LEN + TAG_LEN ? NULL : EVP_CIPHER_CTX_new();
    bool is_open = false;
    for (size_t i = 0; cipher != NULL && i < keys->count && !is_open; i++)
        is_open = open_with(cipher, keys->keys[i], box, out);
    EVP_CIPHER_CTX_free(cipher);
    return is_open;
}

cake__gossip_sealer_t cake__node_sealer(cake__node_keys_t *keys)
{
    if (keys->count == 0)
        return (cake__gossip_sealer_t){NULL, NULL, NULL};
    return (cake__gossip_sealer_t){seal, open_box, keys};
}

int cake__node_keys_copy(cake__node_keys_t *keys, const uint8_t (*from)[CAKE_CLUSTER_KEY_LEN], size_t count)
{
    if (count > CAKE_CLUSTER_KEYS_MAX || (count > 0 && from == NULL))
        return CAKE_EINVAL;
    if (count > 0)
        memcpy(keys->keys, from, count * sizeof keys->keys[0]);
    keys->count = count;
    return 0;
}

void cake__node_keys_wipe(cake__node_keys_t *keys)
{
    OPENSSL_cleanse(keys, sizeof *keys);
}

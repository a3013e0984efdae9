/* A function of one tile, run over all tiles of a call: the threads share them out, each with a work space of its own.
 *
 * Included by one .c file an op, after its `Work` and `work_begin`.
 */
typedef void TileFunction(Work *, const Call *, const Tile *);

/* Returns 0, or 1 where memory was refused. */
static int for_every_tile(const Call *call, TileFunction *function) {
    int failed = 0;
    int64_t tiles = tiles_of(call);
    int threads = (int)least(call->threads, tiles);
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
        Work *work = work_begin(call);
        failed = !work;
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < tiles; index++) {
            if (!work) continue;
            Tile tile = tile_at(call, index);
            function(work, call, &tile);
        }
        free(work);
    }
    return failed;
}
